/** Counters of one node, as `dog node stat` shows them (protocol spec, section 10.1, sd_stat). */
import { STAT_FIELDS, type Stat } from '../wire/sheepdog/records.js'

export class Stats {
  readonly #counts = Object.fromEntries(STAT_FIELDS.map((name) => [name, 0])) as Stat

  add(field: keyof Stat, amount = 1): void {
    this.#counts[field] += amount
  }

  snapshot(): Stat {
    return { ...this.#counts }
  }
}
