/**
 * A volume as a SCSI logical unit: what all sessions that use it share. Reservations, conditions initiators are to be
 * told of, the order between commands, and the settings of mode pages. Lives as long as the server; its volume is open
 * while somebody has a session with it.
 */
import { Code } from '../../base/codes.js'
import { LeftBehind } from '../../volume/left-behind.js'
import type { ByteRange, Decide, Volume, ZeroOptions } from '../../volume/volume.js'
import { Asc, SCSI_LIMITS, SenseKey } from '../../wire/scsi/constants.js'
import { check, GOOD, type Outcome, type Sense } from '../../wire/scsi/sense.js'
import { NOTHING_RESERVED, type ProutResult, type Reservations } from './reservations.js'
import { UnitOrder } from './unit-order.js'

export type End = (outcome: Outcome) => void

/** A session that has this unit. */
export interface Member {
  readonly nexus: string
  /** Number of the target port group it came to. */
  readonly group: number
  /** Gives up its commands to the unit; resolves when none of them can do anything any more. */
  abort(unit: LogicalUnit, by: string): Promise<void>
}

export interface UnitOptions {
  /** Of the volume: `Alice`, `Alice@tag`. */
  readonly name: string
  /** Number of the target port group of the node that has the volume. */
  readonly group: number
  /** Eight bytes: the NAA identifier. */
  readonly naa: Buffer
  readonly blockBytes: number
  readonly readOnly: boolean
  /** Keeps reservations with the volume, for the node that has it next; undefined forgets them. */
  keep(reservations: Reservations | undefined): Promise<void>
}

export class LogicalUnit {
  readonly options: UnitOptions
  readonly blockBytes: number
  readonly members = new Set<Member>()
  readonly order = new UnitOrder()
  /** Changes of sessions that are gone: an initiator may send them again, over this path or another one. */
  readonly leftBehind = new LeftBehind()
  reservations: Reservations = NOTHING_RESERVED
  /** Who holds it by RESERVE(6). */
  reservedBy: string | undefined
  /** Mode pages: WCE of the caching page, SWP of the control page. */
  writeCache = true
  isProtected = false
  #volume: Volume | undefined
  #sizeBytes = 0
  #keeping: Promise<void> = Promise.resolve()
  readonly #attentions = new Map<string, number[]>()
  /** Initiators that were told once that the unit has been powered on. */
  readonly #greeted = new Set<string>()

  constructor(options: UnitOptions) {
    this.options = options
    this.blockBytes = options.blockBytes
  }

  get volume(): Volume {
    if (this.#volume === undefined) throw new Error('the unit is not open')
    return this.#volume
  }

  /** Nobody would miss what it remembers. */
  get isForgettable(): boolean {
    return this.reservations.registrations.length === 0 && this.#greeted.size === 0
  }

  get readOnly(): boolean {
    return this.options.readOnly || this.volume.readOnly
  }

  get blocks(): number {
    return Math.floor(this.volume.sizeBytes / this.blockBytes)
  }

  opened(volume: Volume): void {
    this.#volume = volume
    this.#sizeBytes = volume.sizeBytes
  }

  closed(): void {
    this.#volume = undefined
  }

  /** A nexus begins; one that is new here is told that the unit may have forgotten what others knew. */
  greet(member: Member): void {
    this.members.add(member)
    if (this.#greeted.has(member.nexus)) return
    this.#greeted.add(member.nexus)
    this.tell(member.nexus, Asc.POWER_ON)
  }

  /** A nexus ends: RESERVE(6) ends with it, persistent reservations do not. */
  left(member: Member): void {
    this.members.delete(member)
    if (this.reservedBy === member.nexus) this.reservedBy = undefined
  }

  tell(nexus: string, code: number): void {
    const waiting = this.#attentions.get(nexus) ?? []
    if (waiting.includes(code)) return
    if (waiting.length >= SCSI_LIMITS.attentionsMax) waiting.shift()
    this.#attentions.set(nexus, [...waiting, code])
  }

  tellOthers(nexus: string, code: number): void {
    for (const member of this.members) if (member.nexus !== nexus) this.tell(member.nexus, code)
  }

  /** What `nexus` has to be told before anything else, taken off its list. */
  attention(nexus: string): Sense | undefined {
    const { sizeBytes } = this.volume
    if (sizeBytes !== this.#sizeBytes) {
      this.#sizeBytes = sizeBytes
      for (const member of this.members) this.tell(member.nexus, Asc.CAPACITY_CHANGED)
    }
    if (this.#attentions.size === 0) return undefined
    const waiting = this.#attentions.get(nexus)
    const [code, ...rest] = waiting ?? []
    if (code === undefined) return undefined
    if (rest.length === 0) this.#attentions.delete(nexus)
    else this.#attentions.set(nexus, rest)
    return { key: SenseKey.UNIT_ATTENTION, code }
  }

  /**
   * Takes over what a PERSISTENT RESERVE OUT came to, after it is kept where that was promised. One after the other:
   * `decide` sees what the one before left.
   */
  reserve(nexus: string, decide: () => ProutResult, end: End): void {
    this.#keeping = this.#keeping.then(async () => {
      const before = this.reservations
      const result = decide()
      const { next } = result
      try {
        const isEmpty = next.registrations.length === 0 && !next.aptpl
        if (next !== before) await this.options.keep(isEmpty ? undefined : next)
      } catch {
        end(check(SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES))
        return
      }
      this.reservations = next
      for (const { nexus: whom, code } of result.told) if (whom !== nexus) this.tell(whom, code)
      const aborted = [...this.members].filter((one) => result.aborted.includes(one.nexus))
      for (const one of aborted) this.tell(one.nexus, Asc.COMMANDS_CLEARED)
      // Not waited for here: what is aborted may be a request that waits behind this one.
      const over = Promise.all(aborted.map((one) => one.abort(this, nexus)))
      void over.then(() => end(result.outcome))
    })
  }

  /** LUN RESET and the resets of the target: everything but persistent reservations. */
  async reset(by: string, code: number): Promise<void> {
    this.reservedBy = undefined
    this.writeCache = true
    this.isProtected = false
    // Also who asked for it (SAM-5, 6.3.3).
    for (const member of this.members) this.tell(member.nexus, code)
    await Promise.all([...this.members].map((one) => one.abort(this, by)))
  }

  read(offset: number, into: Uint8Array, end: End): void {
    this.volume.read(offset, into, (code) => end(outcomeOf(code, true)))
  }

  write(offset: number, data: Uint8Array, fua: boolean, end: End): void {
    const durable = fua || !this.writeCache
    this.volume.write(offset, data, durable, (code) => end(outcomeOf(code, false)))
  }

  /** As one step, also in the eyes of other doors that have the volume. */
  update(range: ByteRange, decide: Decide, fua: boolean, end: End): void {
    const durable = fua || !this.writeCache
    this.volume.update(range, decide, durable, (code) => end(outcomeOf(code, false)))
  }

  zero(range: ByteRange, mayUnmap: boolean, end: End): void {
    const options: ZeroOptions = { fua: !this.writeCache, mayUnmap, fastOnly: false }
    this.volume.zero(range, options, (code) => end(outcomeOf(code, false)))
  }

  flush(end: End): void {
    this.volume.flush((code) => end(outcomeOf(code, false)))
  }
}

/** How a command ends whose work on the volume ended with `code`. */
export function outcomeOf(code: Code, isRead: boolean): Outcome {
  switch (code) {
    case Code.SUCCESS:
      return GOOD
    case Code.NO_SPACE:
      return check(SenseKey.DATA_PROTECT, Asc.NO_SPACE)
    case Code.READONLY:
      return check(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    case Code.SHUTDOWN:
    case Code.KILLED:
    case Code.STARTUP:
    case Code.WAIT_FOR_JOIN:
    case Code.WAIT_FOR_FORMAT:
      return check(SenseKey.NOT_READY, Asc.NOT_READY)
    default:
      return check(SenseKey.MEDIUM_ERROR, isRead ? Asc.UNRECOVERED_READ : Asc.WRITE_ERROR)
  }
}
