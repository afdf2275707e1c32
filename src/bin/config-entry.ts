/** One value of the configuration file, and the words in which it is refused. */
import { parseSubnet, type Subnet } from '../model/subnet.js'
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

export function textOf(at: Entry, bytesMax: number): string {
  const { value } = at
  if (typeof value !== 'string' || value === '') throw at.wrong('it is a text')
  if (Buffer.byteLength(value) > bytesMax || value.includes('\0')) {
    throw at.wrong(`it is longer than ${bytesMax} bytes, or has a zero byte in it`)
  }
  return value
}

export function flagOf(at: Entry): boolean {
  if (typeof at.value === 'boolean') return at.value
  throw at.wrong('it is true or false')
}

export function subnetsOf(at: Entry): Subnet[] {
  return wordsOf(at).map((text) => {
    try {
      return parseSubnet(text)
    } catch (error) {
      if (error instanceof RangeError) throw at.wrong(error.message)
      throw error
    }
  })
}
