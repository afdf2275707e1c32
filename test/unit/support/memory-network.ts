/**
 * A network of simulated machines: chunks arrive in order, each a little later than the one before, at an
 * odd time. A machine that dies takes its connections with it; the other ends hear of it as of a reset.
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

/** One machine's network card. */
export interface Card extends Network {
  /** Called before each chunk this machine sends; `to` is a port, 0 on connections made to it. */
  onSend: ((to: number) => void) | undefined
  unplug(): void
}

class End implements Connection {
  readonly remote: string
  readonly card: CardState
  readonly port: number
  peer!: End
  #events: ConnectionEvents | undefined
  #early: Buffer[] = []
  #paused = false
  #open = true
  /** When the last thing sent to this end arrives. */
  #arrival = 0

  constructor(card: CardState, port: number) {
    this.card = card
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

  writeAll(pieces: readonly Uint8Array[]): boolean {
    this.card.onSend?.(this.port)
    if (!this.#open || this.card.dead) return true
    const { peer } = this
    const bytes = Buffer.concat(pieces)
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
    this.card.net.clock.soon(() => this.#deliver())
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
    clock.after(at - clock.now(), arrive)
  }

  #deliver(): void {
    while (this.#events !== undefined && !this.#paused && this.#open && !this.card.dead) {
      const bytes = this.#early.shift()
      if (bytes === undefined) return
      this.#events.data(bytes)
    }
  }

  #hangUp(): void {
    if (!this.#open) return
    this.#open = false
    this.card.ends.delete(this)
    this.card.net.clock.soon(() => {
      if (!this.card.dead) this.#events?.close()
    })
  }
}

interface CardState {
  readonly net: MemoryNetwork
  readonly ends: Set<End>
  dead: boolean
  onSend: ((to: number) => void) | undefined
}

interface Listening {
  readonly card: CardState
  readonly accept: (connection: Connection) => void
}

function refused(to: Address): Error {
  const where = 'port' in to ? to.port : to.path
  return Object.assign(new Error(`connect ECONNREFUSED ${where}`), { code: 'ECONNREFUSED' })
}

export class MemoryNetwork {
  readonly clock: VirtualClock
  readonly dice: Dice
  readonly #listeners = new Map<number, Listening>()

  constructor(clock: VirtualClock, dice: Dice) {
    this.clock = clock
    this.dice = dice
  }

  card(): Card {
    const state: CardState = { net: this, ends: new Set(), dead: false, onSend: undefined }
    return {
      get onSend() {
        return state.onSend
      },
      set onSend(fn) {
        state.onSend = fn
      },
      listen: (at, accept) => Promise.resolve(this.#listen(state, at, accept)),
      connect: (to) => this.#connect(state, to),
      unplug: () => {
        state.dead = true
        for (const [port, { card }] of this.#listeners) {
          if (card === state) this.#listeners.delete(port)
        }
        for (const end of [...state.ends]) end.destroy()
      },
    }
  }

  #listen(card: CardState, at: Address, accept: Listening['accept']): Listener {
    const port = 'port' in at ? at.port : 0
    this.#listeners.set(port, { card, accept })
    return {
      address: at,
      close: () => {
        this.#listeners.delete(port)
        return Promise.resolve()
      },
    }
  }

  async #connect(card: CardState, to: Address): Promise<Connection> {
    await this.clock.sleep(this.dice.below(LATENCY_MS_MAX + 1))
    if (card.dead) return new Promise(() => undefined)
    const port = 'port' in to ? to.port : 0
    const listening = this.#listeners.get(port)
    if (listening === undefined) throw refused(to)
    const near = new End(card, port)
    const far = new End(listening.card, 0)
    near.peer = far
    far.peer = near
    card.ends.add(near)
    listening.card.ends.add(far)
    listening.accept(far)
    return near
  }
}
