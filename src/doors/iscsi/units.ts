/** All logical units of a server, by the volume: opened with the first session that has them, closed after the last. */
import { createHash } from 'node:crypto'
import { Code, codeOf } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { VolumeSource } from '../../volume/volume.js'
import { LogicalUnit, type Member } from './logical-unit.js'
import { decodeReservations, encodeReservations, NOTHING_RESERVED } from './reservations.js'

/** Where reservations are kept that survive restarts: with the volume, for whichever node serves it next. */
export interface ReservationStore {
  /** Undefined: there are none. Rejects with a SheepError. */
  load(volumeName: string): Promise<Buffer | undefined>
  /** Undefined takes them away. Durable when it resolves. */
  save(volumeName: string, value: Buffer | undefined): Promise<void>
}

export interface UnitsOptions {
  readonly source: VolumeSource
  readonly store: ReservationStore
  readonly log: Log
  /** Of the cluster, for identifiers that are the same on every node. */
  identity(): string
}

export interface UnitWish {
  readonly name: string
  readonly blockBytes: number
  readonly readOnly: boolean
}

interface Entry {
  readonly unit: LogicalUnit
  users: number
  /** One after the other: openings and closings. */
  turn: Promise<void>
}

export class Units {
  readonly #options: UnitsOptions
  readonly #entries = new Map<string, Entry>()

  constructor(options: UnitsOptions) {
    this.#options = options
  }

  /** Rejects with a SheepError: NO_VDI, NO_TAG, VDI_LOCKED. */
  async attach(wish: UnitWish, member: Member): Promise<LogicalUnit> {
    const key = `${wish.blockBytes} ${wish.readOnly} ${wish.name}`
    const entry = this.#entries.get(key) ?? {
      unit: this.#make(wish),
      users: 0,
      turn: Promise.resolve(),
    }
    this.#entries.set(key, entry)
    const { unit } = entry
    const opened = entry.turn.then(async () => {
      if (entry.users === 0) await this.#open(unit)
      entry.users++
    })
    entry.turn = opened.catch(() => undefined)
    try {
      await opened
    } catch (error) {
      // Of a name that nobody can open nothing is kept.
      if (entry.users === 0 && unit.isForgettable) this.#entries.delete(key)
      throw error
    }
    unit.greet(member)
    return unit
  }

  /** Never rejects: what goes wrong is in the log. */
  async detach(unit: LogicalUnit, member: Member): Promise<void> {
    unit.left(member)
    const entry = [...this.#entries.values()].find((one) => one.unit === unit)
    if (entry === undefined) throw new Error('a unit nobody knows was given back')
    entry.turn = entry.turn.then(async () => {
      if (--entry.users > 0) return
      const { volume } = unit
      unit.closed()
      try {
        await volume.close()
      } catch (error) {
        const { log } = this.#options
        log.error('iscsi.close.failed', { volume: volume.name, reason: String(error) })
      }
    })
    await entry.turn
  }

  #make({ name, blockBytes, readOnly }: UnitWish): LogicalUnit {
    const { identity, store } = this.#options
    const hash = createHash('sha256').update(`${identity()}\0${name}`).digest()
    const naa = Buffer.from(hash.subarray(0, 8))
    // NAA 3: assigned by whoever runs it; the rest is the hash.
    naa[0] = 0x30 | (naa[0]! & 0x0f)
    return new LogicalUnit({
      ...{ name, naa, blockBytes, readOnly },
      keep: (kept) => store.save(name, kept === undefined ? undefined : encodeReservations(kept)),
    })
  }

  async #open(unit: LogicalUnit): Promise<void> {
    const { source, store, log } = this.#options
    const { name } = unit.options
    const volume = await source.open(name)
    try {
      const kept = volume.readOnly ? undefined : await store.load(name)
      const found = kept === undefined ? undefined : decodeReservations(kept)
      if (kept !== undefined && found === undefined) {
        log.error('iscsi.reservations.unreadable', { volume: name })
      }
      // Another node may have changed what is kept, or taken it away.
      if (found !== undefined) unit.reservations = found
      else if (unit.reservations.aptpl) unit.reservations = NOTHING_RESERVED
      if (volume.sizeBytes < unit.blockBytes) log.warn('iscsi.volume.empty', { volume: name })
      unit.opened(volume)
    } catch (error) {
      await volume.close()
      throw error
    }
  }
}

/** Whether an error says that there is no such volume. */
export function isMissing(error: unknown): boolean {
  const code = codeOf(error)
  return code === Code.NO_VDI || code === Code.NO_TAG
}
