/** Reproducible chance: one seed, one sequence (the mulberry32 generator). */

export interface Dice {
  /** A whole number in [0, limit). */
  below(limit: number): number
  /** One of the items; throws RangeError when there is none. */
  pick<T>(items: readonly T[]): T
  /** A generator of its own that this one's later use does not disturb. */
  fork(): Dice
}

export function dice(seed: number): Dice {
  let state = seed | 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  const below = (limit: number): number => next() % limit
  return {
    below,
    pick: (items) => {
      if (items.length === 0) throw new RangeError('nothing to pick from')
      return items[below(items.length)]!
    },
    fork: () => dice(next()),
  }
}
