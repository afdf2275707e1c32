/**
 * What all listeners of an NBD door have in common: how many clients there may be, what each one and each export has done,
 * and how the exports share what there is.
 */
import {
  NBD_COMMANDS,
  type NbdConnectionRecord,
  type NbdExportRecord,
  type NbdRecord,
} from '../../wire/sheepdog/nbd-statistics.js'
import type { Clock } from '../../world/world.js'
import { FairShares, type Share } from './fair-shares.js'

/** Limits an administrator may set. */
export interface HallLimits {
  /** Connections at once, of all listeners. */
  readonly connections: number
  /** Of one client address; local sockets are not counted. */
  readonly connectionsPerClient: number
  /** A connection without a request for so long is closed; undefined: none is. */
  readonly idleMs: number | undefined
  /** How long requests at work and slow clients are waited for when the door closes. */
  readonly drainMs: number
}

export const HALL_LIMITS: HallLimits = {
  ...{ connections: 4096, connectionsPerClient: 1024 },
  ...{ idleMs: undefined, drainMs: 5_000 },
}

/** Exports whose figures are kept after the last connection has gone. */
const EXPORTS_KEPT_MAX = 1024

/** Figures of one connection, or of what has ended of an export. */
export interface Counters {
  readonly operations: number[]
  readonly bytes: number[]
  errors: number
}

export interface Visit {
  readonly id: number
  readonly sinceMs: number
  readonly counters: Counters
  /** The export is open; `share` is what it may have at work. */
  opened(what: OpenedAs): Share
  /** It has ended. */
  leave(): void
}

export interface OpenedAs {
  readonly exportName: string
  readonly structured: boolean
  readonly extended: boolean
  readonly readOnly: boolean
}

/** What the hall asks of a connection when somebody wants to see the figures. */
export interface Guest {
  readonly remote: string
  readonly remoteHost?: string | undefined
  /** It is only told why it is not served. */
  readonly isRefused: boolean
  readonly isEncrypted: () => boolean
  readonly requestsInFlight: () => number
}

interface Seat {
  readonly guest: Guest
  readonly visit: Visit
  as: OpenedAs | undefined
}

interface ExportFigures {
  readonly id: number
  readonly sinceMs: number
  /** Of connections that have ended. */
  readonly past: Counters
  readonly seats: Set<Seat>
}

export class NbdHall {
  readonly limits: HallLimits
  readonly #clock: Pick<Clock, 'now' | 'monotonic'>
  readonly #shares: FairShares
  readonly #seats = new Map<number, Seat>()
  readonly #exports = new Map<string, ExportFigures>()
  readonly #perHost = new Map<string, number>()
  readonly #refused = new Set<Visit>()
  #nextId = 1

  constructor(clock: Pick<Clock, 'now' | 'monotonic'>, limits: HallLimits = HALL_LIMITS) {
    this.#clock = clock
    this.limits = limits
    this.#shares = new FairShares(() => clock.monotonic())
  }

  /** Clients that are being told why they are not served. */
  get refusing(): number {
    return this.#refused.size
  }

  /** Why nobody more is let in from there; undefined: there is room. */
  refusalFor(host: string | undefined): string | undefined {
    const { connections, connectionsPerClient } = this.limits
    if (this.#seats.size >= connections) {
      return `this server has its ${connections} connections`
    }
    if (host !== undefined && (this.#perHost.get(host) ?? 0) >= connectionsPerClient) {
      return `${host} has its ${connectionsPerClient} connections`
    }
    return undefined
  }

  enter(guest: Guest): Visit {
    const id = this.#nextId++
    const visit: Visit = {
      ...{ id, sinceMs: this.#clock.now(), counters: newCounters() },
      opened: (what) => this.#opened(seat, what),
      leave: () => this.#leave(seat),
    }
    const seat: Seat = { guest, visit, as: undefined }
    if (guest.isRefused) {
      this.#refused.add(visit)
      return visit
    }
    this.#seats.set(id, seat)
    const { remoteHost: host } = guest
    if (host !== undefined) this.#perHost.set(host, (this.#perHost.get(host) ?? 0) + 1)
    return visit
  }

  /**
   * Records from an id on, oldest first, at most `most`; ids never come again, so that a reader who asks for the
   * next ones misses nothing that stays.
   */
  records(firstId: number, most: number): NbdRecord[] {
    const found: { readonly id: number; readonly make: () => NbdRecord }[] = []
    for (const [id, seat] of this.#seats) {
      if (id >= firstId) found.push({ id, make: () => recordOfSeat(seat) })
    }
    for (const [name, figures] of this.#exports) {
      const { id } = figures
      if (id >= firstId) found.push({ id, make: () => recordOfExport(name, figures) })
    }
    return found
      .sort((a, b) => a.id - b.id)
      .slice(0, most)
      .map(({ make }) => make())
  }

  #opened(seat: Seat, what: OpenedAs): Share {
    const name = what.exportName
    seat.as = what
    let figures = this.#exports.get(name)
    if (figures === undefined) {
      const [id, sinceMs] = [this.#nextId++, this.#clock.now()]
      figures = { id, sinceMs, past: newCounters(), seats: new Set() }
      this.#exports.set(name, figures)
      this.#forgetOldest()
    }
    figures.seats.add(seat)
    return this.#shares.enter(name)
  }

  #leave(seat: Seat): void {
    const { visit, guest, as } = seat
    if (this.#refused.delete(visit) || !this.#seats.delete(visit.id)) return
    const { remoteHost: host } = guest
    const others = host === undefined ? 0 : (this.#perHost.get(host) ?? 1) - 1
    if (host !== undefined && others === 0) this.#perHost.delete(host)
    else if (host !== undefined) this.#perHost.set(host, others)
    if (as === undefined) return
    this.#shares.leave(as.exportName)
    const figures = this.#exports.get(as.exportName)
    if (figures?.seats.delete(seat) === true) addTo(figures.past, visit.counters)
  }

  /** Names come from clients only as far as there are such volumes; many come and go all the same. */
  #forgetOldest(): void {
    if (this.#exports.size <= EXPORTS_KEPT_MAX) return
    for (const [name, { seats }] of this.#exports) {
      if (seats.size > 0) continue
      this.#exports.delete(name)
      return
    }
  }
}

function newCounters(): Counters {
  const zeros = (): number[] => new Array<number>(NBD_COMMANDS).fill(0)
  return { operations: zeros(), bytes: zeros(), errors: 0 }
}

function addTo(sum: Counters, more: Counters): void {
  for (let i = 0; i < NBD_COMMANDS; i++) {
    sum.operations[i]! += more.operations[i]!
    sum.bytes[i]! += more.bytes[i]!
  }
  sum.errors += more.errors
}

function recordOfSeat({ guest, visit, as }: Seat): NbdConnectionRecord {
  return {
    kind: 'connection',
    ...{ id: visit.id, sinceMs: visit.sinceMs, counters: visit.counters },
    ...{ exportName: as?.exportName, client: guest.remote, tls: guest.isEncrypted() },
    ...{ structured: as?.structured ?? false, extended: as?.extended ?? false },
    readOnly: as?.readOnly ?? false,
    requestsInFlight: guest.requestsInFlight(),
  }
}

function recordOfExport(
  name: string,
  { id, sinceMs, past, seats }: ExportFigures,
): NbdExportRecord {
  const counters = newCounters()
  addTo(counters, past)
  let requestsInFlight = 0
  for (const { guest, visit } of seats) {
    addTo(counters, visit.counters)
    requestsInFlight += guest.requestsInFlight()
  }
  return { kind: 'export', id, name, sinceMs, counters, connections: seats.size, requestsInFlight }
}
