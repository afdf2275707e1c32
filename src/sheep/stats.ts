/**
 * Counters of one node, as `dog node stat` shows them (protocol spec, section 10.1, sd_stat). "Gateway" is what
 * clients asked of this node, through any of its doors; "peer" what other nodes asked of its copies.
 */
import { Op } from '../wire/sheepdog/opcodes.js'
import { STAT_FIELDS, type Stat } from '../wire/sheepdog/records.js'

type Side = 'gateway' | 'peer'

const SIDES: ReadonlyMap<number, Side> = new Map<number, Side>([
  [Op.CREATE_AND_WRITE_OBJ, 'gateway'],
  [Op.READ_OBJ, 'gateway'],
  [Op.WRITE_OBJ, 'gateway'],
  [Op.REMOVE_OBJ, 'gateway'],
  [Op.DISCARD_OBJ, 'gateway'],
  [Op.FLUSH_VDI, 'gateway'],
  [Op.CREATE_AND_WRITE_PEER, 'peer'],
  [Op.READ_PEER, 'peer'],
  [Op.WRITE_PEER, 'peer'],
  [Op.REMOVE_PEER, 'peer'],
])

export class Stats {
  readonly #counts = Object.fromEntries(STAT_FIELDS.map((name) => [name, 0])) as Stat

  add(field: keyof Stat, amount = 1): void {
    this.#counts[field] += amount
  }

  /** A request of the sheepdog protocol begins; others than for objects are not counted. */
  begin(opcode: number, payloadBytes: number): void {
    const side = SIDES.get(opcode)
    if (side !== undefined) this.beginAt(side, payloadBytes)
  }

  /** The same request is answered. */
  end(opcode: number, answerBytes: number): void {
    const side = SIDES.get(opcode)
    if (side !== undefined) this.endAt(side, answerBytes)
  }

  beginAt(side: Side, payloadBytes: number): void {
    const counts = this.#counts
    counts[`${side}Active`]++
    counts[`${side}Total`]++
    counts[`${side}ReceivedBytes`] += payloadBytes
  }

  endAt(side: Side, answerBytes: number): void {
    const counts = this.#counts
    counts[`${side}Active`]--
    counts[`${side}SentBytes`] += answerBytes
  }

  snapshot(): Stat {
    return { ...this.#counts }
  }
}
