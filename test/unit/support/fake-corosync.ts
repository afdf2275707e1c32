/**
 * Corosync in memory, on the virtual clock of a simulated host: hosts with processes, connected as the test
 * says. Hosts of one part see the same messages and changes in one order; parts know nothing of each other.
 *
 * A message belongs to the ring it was sent in: a tear finds some of them delivered on one side only, as `tear`
 * can be told, which is what real rings do at their worst.
 */
import type {
  Arrival,
  Corosync,
  Departure,
  Group,
  GroupChange,
  GroupEvents,
  ProcessId,
  QuorumEvents,
} from '../../../src/world/corosync.js'
import type { Clock } from '../../../src/world/world.js'
import type { SimHost, SimProcess } from './sim-host.js'

/** From sending to delivery. */
const TURN_MS = 1
/** Messages a process may have under way; more is "busy". */
const FLOW_MAX = 24

interface Port {
  readonly process: ProcessId
  readonly group: string
  readonly events: GroupEvents
  readonly home: SimProcess
  closed: boolean
  underWay: number
}

export interface FakeHost {
  readonly nodeId: number
  /** A new process on this host, and the corosync it sees. */
  process(): { readonly corosync: Corosync; readonly process: SimProcess; readonly id: ProcessId }
}

export class FakeRing {
  readonly #host: SimHost
  readonly #clock: Clock
  readonly #parts = new Map<number, number>()
  #ports: Port[] = []
  readonly #quorum = new Map<number, Set<QuorumEvents>>()
  #nextPid = 100
  #stopped = false
  readonly #underWay: { readonly from: ProcessId; readonly act: () => void }[] = []
  readonly #frozen = new Map<number, (() => void)[]>()
  quorate: boolean | undefined
  readonly sent: { readonly group: string; readonly parts: readonly Buffer[] }[] = []

  constructor(host: SimHost) {
    this.#host = host
    this.#clock = host.process().clock
  }

  host(nodeId: number): FakeHost {
    if (!this.#parts.has(nodeId)) this.#parts.set(nodeId, 0)
    return {
      nodeId,
      process: () => {
        const home = this.#host.process()
        const id = { nodeId, pid: this.#nextPid++ }
        return { process: home, id, corosync: this.#corosync(home, id) }
      },
    }
  }

  /** The process is killed: its corosync tells the others. */
  kill(id: ProcessId): void {
    for (const port of this.#ports) {
      if (port.process.nodeId !== id.nodeId || port.process.pid !== id.pid || port.closed) continue
      port.home.kill()
      this.#leave(port, 'died')
    }
  }

  /**
   * From now on hosts hear only those of their own part; parts in any number, missing hosts stay together.
   * What is under way arrives after the change; with `early` before it, in the sender's own part alone.
   */
  tear(parts: readonly (readonly number[])[], early = false): void {
    const parting = new Map(this.#parts)
    const ports = [...this.#ports]
    for (const nodeId of this.#parts.keys()) this.#parts.set(nodeId, 0)
    parts.forEach((part, i) => {
      for (const nodeId of part) this.#parts.set(nodeId, i + 1)
    })
    if (early) for (const { act } of this.#underWay.splice(0)) act()
    for (const group of new Set(ports.map((port) => port.group))) {
      const had = ports.filter((port) => port.group === group)
      for (const to of had) if (!to.closed) this.#retell(to, had, parting)
    }
  }

  heal(): void {
    this.tear([[...this.#parts.keys()]])
  }

  /** Nothing is delivered while stopped; what was sent waits. */
  set stopped(stopped: boolean) {
    this.#stopped = stopped
    if (stopped) return
    // Who has the token sends all it has: one process after the other.
    const waiting = this.#underWay.splice(0)
    for (const who of new Set(waiting.map(({ from }) => from))) {
      for (const { from, act } of waiting) if (from === who) act()
    }
  }

  setQuorate(quorate: boolean): void {
    this.quorate = quorate
    for (const watchers of this.#quorum.values()) for (const one of watchers) one.changed(quorate)
  }

  #corosync(home: SimProcess, id: ProcessId): Corosync {
    return {
      localAddresses: () => Promise.resolve([`10.0.0.${id.nodeId}`]),
      watchQuorum: (events) => {
        const watchers = this.#quorum.get(id.nodeId) ?? new Set()
        this.#quorum.set(id.nodeId, watchers.add(events))
        home.clock.soon(() => events.changed(this.quorate))
        return () => watchers.delete(events)
      },
      join: (group, events) => this.#join({ process: id, group, events, home }),
    }
  }

  #join(parts: Pick<Port, 'process' | 'group' | 'events' | 'home'>): Group {
    const port: Port = { ...parts, closed: false, underWay: 0 }
    const { clock } = port.home
    clock.soon(() => {
      if (port.closed) return
      port.events.opened(port.process)
      this.#inOrder(port.process, () => {
        if (port.closed) return
        this.#ports.push(port)
        const joined = [{ process: port.process, why: 'joined' as const }]
        this.#tell(port, { left: [], joined })
      })
    })
    return {
      send: (pieces) => {
        if (port.closed) return 'closed'
        if (port.underWay >= FLOW_MAX) return 'busy'
        this.#send(port, Buffer.concat(pieces.map((piece) => Buffer.from(piece))))
        this.sent.push({ group: port.group, parts: pieces })
        return 'sent'
      },
      close: () => {
        if (!port.closed) this.#leave(port, 'left')
      },
    }
  }

  #send(port: Port, bytes: Buffer): void {
    port.underWay++
    this.#inOrder(port.process, () => {
      port.underWay--
      if (!this.#ports.includes(port)) return
      for (const other of this.#reached(port)) {
        const copy = Buffer.from(bytes)
        this.#deliver(other, () => other.events.message(port.process, copy))
      }
    })
  }

  /** Closed at once for its owner; the others see it in order. */
  #leave(port: Port, why: Departure): void {
    port.closed = true
    this.#inOrder(port.process, () => {
      const others = this.#reached(port)
      this.#ports = this.#ports.filter((one) => one !== port)
      for (const other of others) {
        if (other === port) continue
        const left = [{ process: port.process, why }]
        this.#change(other, left, [])
      }
    })
  }

  #tell(about: Port, { left, joined }: Pick<GroupChange, 'left' | 'joined'>): void {
    for (const other of this.#reached(about)) this.#change(other, left, joined)
  }

  #change(to: Port, left: GroupChange['left'], joined: GroupChange['joined']): void {
    const members = this.#reached(to).map((port) => port.process)
    this.#deliver(to, () => to.events.changed({ members, left, joined }))
  }

  /** `had`: the group before the tear; who left it meanwhile in the own part has been told of. */
  #retell(to: Port, had: readonly Port[], before: ReadonlyMap<number, number>): void {
    const is = this.#reached(to)
    const isHere = (port: Port): boolean => same(this.#parts, port, to)
    const left = had
      .filter((port) => same(before, port, to) && !isHere(port))
      .map(({ process }) => ({ process, why: 'node-down' as const }))
    const joined = is
      .filter((port) => !same(before, port, to))
      .map(({ process }) => ({ process, why: 'node-up' as Arrival }))
    if (left.length + joined.length > 0) this.#change(to, left, joined)
  }

  #reached(from: Port): Port[] {
    const part = this.#parts.get(from.process.nodeId)
    return this.#ports.filter(
      (port) => port.group === from.group && this.#parts.get(port.process.nodeId) === part,
    )
  }

  /** The corosync of that host says nothing to its processes until it is thawed. */
  freeze(nodeId: number): void {
    if (!this.#frozen.has(nodeId)) this.#frozen.set(nodeId, [])
  }

  thaw(nodeId: number): void {
    const waiting = this.#frozen.get(nodeId) ?? []
    this.#frozen.delete(nodeId)
    for (const tell of waiting) tell()
  }

  #deliver(to: Port, tell: () => void): void {
    const now = (): void => {
      to.home.clock.soon(() => {
        if (!to.closed) tell()
      })
    }
    const frozen = this.#frozen.get(to.process.nodeId)
    if (frozen === undefined) now()
    else frozen.push(now)
  }

  #inOrder(from: ProcessId, act: () => void): void {
    this.#underWay.push({ from, act })
    this.#clock.after(TURN_MS, () => {
      if (!this.#stopped) this.#underWay.shift()?.act()
    })
  }
}

function same(parts: ReadonlyMap<number, number>, a: Port, b: Port): boolean {
  return parts.get(a.process.nodeId) === parts.get(b.process.nodeId)
}
