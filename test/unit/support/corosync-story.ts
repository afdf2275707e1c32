/**
 * Members of the corosync driver on a ring that is torn, stopped and healed as the test says. In every story holds:
 * when a member believes that another one is gone, that one is gone, or has stopped being sure of itself; and members
 * that are sure have seen the same events.
 */
import type { ExecutionContext } from 'ava'
import { silentLog } from '../../../src/base/log.js'
import { corosyncDriver } from '../../../src/cluster/corosync/driver.js'
import type { Corosync, ProcessId } from '../../../src/world/corosync.js'
import { NodeRandom } from '../../../src/world/node/random.js'
import { FakeRing } from './fake-corosync.js'
import { Recorder } from './recorder.js'
import { type SimHost, type SimProcess, simHost } from './sim-host.js'

const STEP_MS = 10

/** A process that lives one node after the other. */
interface Home {
  readonly nodeId: number
  readonly id: ProcessId
  readonly process: SimProcess
  readonly corosync: Corosync
}

/** One life. */
export interface Member extends Home {
  readonly port: number
  readonly recorder: Recorder
}

export class Story {
  readonly host: SimHost = simHost()
  readonly ring = new FakeRing(this.host)
  readonly members: Member[] = []
  readonly #t: ExecutionContext
  readonly #comeAgain: boolean

  /** `comeAgain`: who loses the cluster, or is not let in, tries again. */
  constructor(t: ExecutionContext, { comeAgain = false } = {}) {
    this.#t = t
    this.#comeAgain = comeAgain
  }

  /** A member on each of these hosts, one after the other; its port is its number. */
  async with(...nodeIds: readonly number[]): Promise<this> {
    for (const nodeId of nodeIds) {
      const { recorder } = await this.enter(nodeId)
      await this.until(() => recorder.lines.length > 0)
    }
    const count = this.members.length
    await this.until(() => this.members.every((member) => this.isSure(member)))
    await this.until(() => this.members.every(({ recorder }) => last(recorder) === count))
    return this
  }

  /** A new process on this host asks to come in. */
  async enter(nodeId: number): Promise<Member> {
    const home = { nodeId, ...this.ring.host(nodeId).process() }
    return this.#live(home, new Set(this.members.map(({ port }) => port)).size + 1)
  }

  /** What a node does that lost its cluster: it asks to come in again, from the same process. */
  async #again({ nodeId, id, process, corosync, port }: Member): Promise<void> {
    if (process.alive) await this.#live({ nodeId, id, process, corosync }, port, true)
  }

  async #live(home: Home, port: number, isPatient = false): Promise<Member> {
    const { corosync, process } = home
    const world = { clock: process.clock, random: new NodeRandom() }
    const driver = await corosyncDriver({ world, corosync, log: silentLog, isPatient })
    const recorder = new Recorder(driver, port)
    const member = { ...home, port, recorder }
    this.members.push(member)
    const { left, suspended } = recorder
    recorder.left = (node, members) => {
      this.#buries(port, node.port)
      left.call(recorder, node, members)
    }
    recorder.suspended = (reason) => {
      suspended.call(recorder, reason)
      if (this.#comeAgain) process.clock.soon(() => void this.#again(member))
    }
    recorder.join().catch((error: Error) => {
      recorder.own.push(`rejected ${error.message}`)
      if (this.#comeAgain) process.clock.soon(() => void this.#again(member))
    })
    return member
  }

  #buries(by: number, port: number): void {
    const lives = this.members.filter((one) => one.port === port)
    // When there are several, the newest may have come in already where others are ahead.
    const gone = lives.length === 1 ? lives : lives.slice(0, -1)
    const sure = gone.some((one) => this.isSure(one))
    this.#t.false(sure, `${by} takes ${port} for gone, which is sure of itself`)
  }

  member(port: number): Member {
    return this.members[port - 1]!
  }

  isSure({ recorder, process }: Member): boolean {
    return process.alive && recorder.driver.sureUntil() > this.host.now()
  }

  sure(): number[] {
    return this.members.filter((member) => this.isSure(member)).map(({ port }) => port)
  }

  lost(): number[] {
    const isLost = ({ recorder }: Member): boolean =>
      recorder.own.some((line) => /^suspended /.test(line))
    return this.members.filter(isLost).map(({ port }) => port)
  }

  async pass(ms: number): Promise<void> {
    const end = this.host.now() + ms
    while (this.host.now() < end) {
      await this.host.advance(STEP_MS)
      this.check()
    }
  }

  async until(holds: () => boolean, limitMs = 60_000): Promise<void> {
    const end = this.host.now() + limitMs
    while (!holds()) {
      if (this.host.now() > end) throw new Error('it never came to this')
      await this.pass(STEP_MS)
    }
  }

  /** Waits until everybody who lives is sure, and all have the same idea of who is in. */
  async together(limitMs: number): Promise<void> {
    try {
      await this.until(() => this.#areTogether(), limitMs)
    } catch (error) {
      throw new Error(`${String(error)}\n${this.members.map((one) => this.#tale(one)).join('\n')}`)
    }
  }

  #areTogether(): boolean {
    const newest = new Map(this.members.map((member) => [member.port, member]))
    const living = [...newest.values()].filter(({ process }) => process.alive)
    const views = living.map(({ recorder }) => /\[(.*)\]/.exec(recorder.lines.at(-1) ?? '')?.[1])
    return (
      living.every((member) => this.isSure(member)) &&
      views.every((view) => view === views[0]) &&
      views.every((view) => view?.split(' ').length === living.length)
    )
  }

  #tale(member: Member): string {
    const { port, nodeId, id, process, recorder } = member
    const state = process.alive ? (this.isSure(member) ? 'sure' : 'unsure') : 'dead'
    const lines = [...recorder.lines, ...recorder.own.map((line) => `own: ${line}`)]
    return [`${port} as ${nodeId}/${id.pid}, ${state}`, ...lines].join('\n  ')
  }

  /** Of two members that are sure, one has seen what the other has seen, or more of the same. */
  check(): void {
    const sure = this.members.filter((member) => this.isSure(member))
    for (const a of sure) {
      for (const b of sure.slice(sure.indexOf(a) + 1)) {
        const [one, other] = common(a.recorder.lines, b.recorder.lines)
        const shared = Math.min(one.length, other.length)
        this.#t.deepEqual(one.slice(0, shared), other.slice(0, shared), `${a.port} and ${b.port}`)
      }
    }
  }
}

function last({ lines }: Recorder): number {
  return /\[(.*)\]/.exec(lines.at(-1) ?? '')?.[1]?.split(' ').length ?? 0
}

/** Both histories from the later one's begin; nothing when the earlier one has not come that far. */
function common(
  a: readonly string[],
  b: readonly string[],
): [readonly string[], readonly string[]] {
  const [ab, ba] = [a.indexOf(b[0] ?? ''), b.indexOf(a[0] ?? '')]
  if (ab >= 0) return [a.slice(ab), b]
  if (ba >= 0) return [a, b.slice(ba)]
  return [[], []]
}
