/** One value of the configuration file, and the words in which it is refused. */
import { nearest } from './nearest.js'

/** One value of the file: which, and what is said when it is wrong. */
export interface Entry {
  /** From the top of the file: `nbd.export[1].name`. */
  readonly path: string
  readonly value: unknown
  /** An Error for people: file, line, key, and what is wrong with it. */
  wrong(why: string): Error
}

export type Table = Readonly<Record<string, unknown>>

export function isTable(value: unknown): value is Table {
  if (typeof value !== 'object' || value === null) return false
  // The parser's tables inherit nothing; its dates and lists do.
  const kind: unknown = Object.getPrototypeOf(value)
  return kind === null || kind === Object.prototype
}

export function unknownKey(key: string, known: Iterable<string>): string {
  const meant = nearest(key, known)
  return `there is no such key${meant === undefined ? '' : `; is '${meant}' meant?`}`
}

/** A word, a number as a word, or a list of those. */
export function wordsOf(at: Entry): string[] {
  const values: unknown[] = Array.isArray(at.value) ? at.value : [at.value]
  return values.map((value) => {
    if (typeof value === 'string' && value !== '') return value
    if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value)
    throw at.wrong('it is a text or a whole number, or a list of those')
  })
}
