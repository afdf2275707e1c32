/**
 * A network of simulated machines: chunks arrive in order, each a little later than the one before, at an
 * odd time. A machine that dies takes its connections with it; the other ends hear of it as of a reset. A cut
 * cable loses nothing for ever: what was sent arrives when it is whole again, closed connections or not.
 */
import type {
  Address,
  Connection,
  ConnectionEvents,
  Listener,
  Network,
} from '../../../src/world/world.js'
import type { Dice } from './fake-cluster.js'
import type { VirtualClock } from './virtual-clock.js'

const LATENCY_MS_MAX = 3
const SCRIBBLE = 0xd7
/** TCP doubles the time between its attempts (RFC 6298, section 5). */
const RETRANSMIT_MS_MAX = 15_000

/** One machine's network card. */
export interface Card extends Network {
  /** Called before each chunk this machine sends; `to` is a port, 0 on connections made to it. */
  onSend: ((to: number) => void) | undefined
  unplug(): void
  /** While true nothing arrives from this machine or at it. */
  isCut: boolean
}

class End implements Connection {
  readonly remote: string
  readonly card: CardState
  readonly port: number
  readonly listening: Listening
  peer!: End
  #events: ConnectionEvents | undefined
  #early: Buffer[] = []
  #paused = false
  #open = true
  /** When the last thing sent to this end arrives. */
  #arrival = 0
  readonly #held: (() => void)[] = []

  constructor(card: CardState, listening: Listening, port: number) {
    this.card = card
    this.listening = listening
    this.port = port
    this.remote = `memory:${port}`
  }

  on(events: ConnectionEvents): void {
    this.#events = events
    this.#deliver()
  }

  write(bytes: Uint8Array): boolean {
    return this.writeAll([bytes])
  }

  writeAll(pieces: readonly Uint8Array[], sent?: () => void): boolean {
    this.card.onSend?.(this.port)
    if (!this.#open || this.card.dead) return true
    const { peer } = this
    const bytes = Buffer.concat(pieces)
    if (sent !== undefined) this.card.net.clock.soon(() => this.card.run(sent))
    peer.#later(() => {
      peer.#early.push(bytes)
      peer.#deliver()
    })
    return true
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.card.net.clock.soon(() => this.card.run(() => this.#deliver()))
  }

  end(): void {
    this.destroy()
  }

  destroy(): void {
    if (!this.#open) return
    const { peer } = this
    peer.#later(() => peer.#hangUp())
    this.#hangUp()
  }

  #later(arrive: () => void): void {
    const { clock, dice } = this.card.net
    const at = Math.max(this.#arrival, clock.now() + dice.below(LATENCY_MS_MAX + 1))
    this.#arrival = at
    clock.after(at - clock.now(), () => {
      if (this.#held.length === 0 && !this.#isCut) {
        this.card.run(arrive)
        return
      }
      this.#held.push(arrive)
      this.card.net.held.add(this)
    })
  }

  get #isCut(): boolean {
    return this.card.isCut || this.peer.card.isCut || this.listening.isCut
  }

  /** A cable is whole again, perhaps this one; the sender hears of it when it next tries. */
  healed(): void {
    const { net } = this.card
    net.clock.after(net.dice.below(RETRANSMIT_MS_MAX), () => {
      if (this.#isCut) return
      net.held.delete(this)
      for (const arrive of this.#held.splice(0)) this.card.run(arrive)
    })
  }

  #deliver(): void {
    while (this.#events !== undefined && !this.#paused && this.#open && !this.card.dead) {
      const bytes = this.#early.shift()
      if (bytes === undefined) return
      this.#hand(this.#events, bytes)
    }
  }

  /** Who has room gets the bytes there, as much as fits; what was borrowed is overwritten behind him. */
  #hand(events: ConnectionEvents, bytes: Buffer): void {
    if (events.room === undefined) {
      events.data(bytes)
      return
    }
    const room = events.room()
    if (room === undefined) {
      events.data(bytes)
      bytes.fill(SCRIBBLE)
      return
    }
    const count = Math.min(room.length, bytes.length)
    room.set(bytes.subarray(0, count))
    if (count < bytes.length) this.#early.unshift(bytes.subarray(count))
    events.data(Buffer.from(room.buffer as ArrayBuffer, room.byteOffset, count))
  }

  #hangUp(): void {
    if (!this.#open) return
    this.#open = false
    this.card.ends.delete(this)
    this.card.net.clock.soon(() => {
      this.card.run(() => {
        if (!this.card.dead) this.#events?.close()
      })
    })
  }
}

interface CardState {
  readonly net: MemoryNetwork
  readonly ends: Set<End>
  dead: boolean
  isCut: boolean
  onSend: ((to: number) => void) | undefined
  /** Runs what happens to the process behind it. */
  readonly run: (fn: () => void) => void
}

interface Listening {
  readonly card: CardState
  readonly accept: (connection: Connection) => void
  isCut: boolean
}

function refused(to: Address): Error {
  const where = 'port' in to ? to.port : to.path
  return Object.assign(new Error(`connect ECONNREFUSED ${where}`), { code: 'ECONNREFUSED' })
}

export class MemoryNetwork {
  readonly clock: VirtualClock
  readonly dice: Dice
  /** Ends at which something would have arrived. */
  readonly held = new Set<End>()
  readonly #listeners = new Map<number, Listening>()

  constructor(clock: VirtualClock, dice: Dice) {
    this.clock = clock
    this.dice = dice
  }

  /** `run`: how the process behind it is told of anything. */
  card(run: (fn: () => void) => void = (fn) => fn()): Card {
    const ends = new Set<End>()
    const state: CardState = { net: this, ends, dead: false, isCut: false, onSend: undefined, run }
    const heal = (): void => this.#heal()
    return {
      get isCut() {
        return state.isCut
      },
      set isCut(isCut) {
        state.isCut = isCut
        heal()
      },
      get onSend() {
        return state.onSend
      },
      set onSend(fn) {
        state.onSend = fn
      },
      listen: (at, accept) => {
        if ('fd' in at) return Promise.reject(new Error('nothing is passed in here'))
        return Promise.resolve(this.#listen(state, at, accept))
      },
      connect: (to, timeoutMs) => this.#connect(state, to, timeoutMs),
      unplug: () => {
        state.dead = true
        for (const [port, { card }] of this.#listeners) {
          if (card === state) this.#listeners.delete(port)
        }
        for (const end of [...state.ends]) end.destroy()
      },
    }
  }

  /** The cable of one port: nothing arrives on connections made to it while it is cut. */
  cut(port: number, isCut: boolean): void {
    const listening = this.#listeners.get(port)
    if (listening === undefined) throw new Error(`nobody listens at ${port}`)
    listening.isCut = isCut
    this.#heal()
  }

  #heal(): void {
    for (const end of [...this.held]) end.healed()
  }

  #listen(card: CardState, at: Address, accept: Listening['accept']): Listener {
    const port = 'port' in at ? at.port : 0
    this.#listeners.set(port, { card, accept, isCut: false })
    return {
      address: at,
      close: () => {
        this.#listeners.delete(port)
        return Promise.resolve()
      },
    }
  }

  async #connect(card: CardState, to: Address, timeoutMs: number): Promise<Connection> {
    await this.clock.sleep(this.dice.below(LATENCY_MS_MAX + 1))
    if (card.dead) return new Promise(() => undefined)
    const port = 'port' in to ? to.port : 0
    const listening = this.#listeners.get(port)
    if (card.isCut || listening?.card.isCut === true || listening?.isCut === true) {
      await this.clock.sleep(timeoutMs)
      throw Object.assign(new Error(`connect ETIMEDOUT ${port}`), { code: 'ETIMEDOUT' })
    }
    if (listening === undefined) throw refused(to)
    const near = new End(card, listening, port)
    const far = new End(listening.card, listening, 0)
    near.peer = far
    far.peer = near
    card.ends.add(near)
    listening.card.ends.add(far)
    listening.card.run(() => listening.accept(far))
    await new Promise<void>((resolve) => card.run(resolve))
    return near
  }
}
