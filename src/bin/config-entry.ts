/** Values and rules of the configuration file, and the words in which they are refused. */
import { LIMITS } from '../base/limits.js'
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

/** Names the value of a key for messages; the key '' is the table itself. */
export type EntryAt = (key: string, value: unknown) => Entry

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

export function refuseUnknown(table: Table, known: readonly string[], entryAt: EntryAt): void {
  for (const [key, value] of Object.entries(table)) {
    if (!known.includes(key)) throw entryAt(key, value).wrong(unknownKey(key, known))
  }
}

/** One `[[door.list]]` of the file: whom a rule is for, and its other keys. */
export interface RuleTable {
  readonly table: Table
  readonly entryAt: EntryAt
  /** The name of a disk, or a pattern of such names. */
  readonly name: string
  /** What `read` makes of the key; undefined: it is not there. */
  optional<T>(key: string, read: (at: Entry) => T): T | undefined
}

/** Name, '@' and tag of a volume at their longest. */
export const PATTERN_BYTES_MAX = 2 * LIMITS.nameBytesMax + 1

/** The rules in `value`, of `[[header]]`; `known` are the keys of each. `entryAt` is that of the table they are in. */
export function ruleTables(
  header: string,
  value: unknown,
  known: readonly string[],
  entryAt: EntryAt,
): RuleTable[] {
  const list = header.slice(header.indexOf('.') + 1)
  if (!Array.isArray(value) || !value.every(isTable)) {
    throw entryAt(list, value).wrong(`rules are tables of their own, [[${header}]]`)
  }
  return value.map((table, i) => {
    const place = `${list}[${i}]`
    const inRule: EntryAt = (key, of) => entryAt(key === '' ? place : `${place}.${key}`, of)
    refuseUnknown(table, known, inRule)
    const optional = <T>(key: string, read: (at: Entry) => T): T | undefined =>
      table[key] === undefined ? undefined : read(inRule(key, table[key]))
    const name = optional('name', (at) => textOf(at, PATTERN_BYTES_MAX))
    if (name === undefined) throw inRule('', table).wrong("it has no name, such as name = 'Alice'")
    return { table, entryAt: inRule, name, optional }
  })
}
