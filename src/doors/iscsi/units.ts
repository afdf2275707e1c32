/** All logical units of a server, by the volume: opened with the first session that has them, closed after the last. */
import { createHash } from 'node:crypto'
import { Code, codeOf } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { VolumeSource } from '../../volume/volume.js'
import { LogicalUnit, type Member } from './logical-unit.js'
import {
  decodeReservations,
  encodeReservations,
  NOTHING_RESERVED,
  type Reservations,
} from './reservations.js'

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
  readonly group: number
  /** Of this process, unlike any other's. */
  readonly life: string
  /** Whether a node of this target port group is in the cluster. */
  isPresent(group: number): boolean
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
  /** Volumes whose initiators this node has passed on. */
  readonly #passed = new Set<string>()

  constructor(options: UnitsOptions) {
    this.#options = options
  }

  /** Another node has it, and initiators come to this one: the disk they know is still the same when that one dies. */
  passedOn(volumeName: string): void {
    this.#passed.add(volumeName)
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
    const { identity, store, group, life } = this.#options
    const hash = createHash('sha256').update(`${identity()}\0${name}`).digest()
    const naa = Buffer.from(hash.subarray(0, 8))
    // NAA 3: assigned by whoever runs it; the rest is the hash.
    naa[0] = 0x30 | (naa[0]! & 0x0f)
    return new LogicalUnit({
      ...{ name, group, naa, blockBytes, readOnly },
      keep: async (kept) => {
        const keeper = { group, life }
        // Nobody else has anything to do with those of what cannot be written.
        if (readOnly || name.includes('@')) return
        await store.save(name, kept === undefined ? undefined : encodeReservations(kept, keeper))
      },
    })
  }

  async #open(unit: LogicalUnit): Promise<void> {
    const { source, log } = this.#options
    const { name } = unit.options
    const volume = await source.open(name)
    try {
      if (!volume.readOnly && !unit.options.readOnly) unit.reservations = await this.#kept(name)
      if (volume.sizeBytes < unit.blockBytes) log.warn('iscsi.volume.empty', { volume: name })
      unit.opened(volume)
    } catch (error) {
      await volume.close()
      throw error
    }
  }

  /**
   * Reservations of a volume that is being opened. Those without APTPL end when the disk loses its power: with the process
   * that kept them, unless another node went on showing the disk to initiators.
   */
  async #kept(name: string): Promise<Reservations> {
    const { store, log, life, group, isPresent } = this.#options
    const bytes = await store.load(name)
    const isGoingOn = this.#passed.delete(name)
    if (bytes === undefined) return NOTHING_RESERVED
    const found = decodeReservations(bytes)
    if (found === undefined) {
      log.error('iscsi.reservations.unreadable', { volume: name })
      return NOTHING_RESERVED
    }
    const { state, keeper } = found
    const isOthers = keeper.group !== group && isPresent(keeper.group)
    if (state.aptpl || isGoingOn || keeper.life === life || isOthers) return state
    await store.save(name, undefined)
    return NOTHING_RESERVED
  }
}

/** Whether an error says that there is no such volume. */
export function isMissing(error: unknown): boolean {
  const code = codeOf(error)
  return code === Code.NO_VDI || code === Code.NO_TAG
}
