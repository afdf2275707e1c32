/**
 * The configuration file, in TOML. Every long option of `sheep` is a key of it, the options of the NBD door also without
 * their prefix in a table of their own, and export rules are there only:
 *
 *   path = ["/var/lib/sheepdog", "/disk1"]
 *   cluster = "zookeeper:10.0.0.1"
 *
 *   [nbd]
 *   listen = ["10809", "unix:/run/sheepdog/nbd.sock"]
 *   default-export = "Alice"
 *
 *   [[nbd.export]]
 *   name = "public-*"
 *   read-only = true
 *   addresses = ["10.0.0.0/8", "unix"]
 *   certificates = ["client.example"]
 *
 * A key that is not known is refused, with its line: a rule that is not heeded is no rule.
 */
import { readFileSync } from 'node:fs'
import { InvalidArgumentError, type Option } from 'commander'
import { parse, TomlError } from 'smol-toml'
import type { ExportRules } from '../doors/nbd/export-rules.js'
import { type Entry, isTable, type Table, unknownKey, wordsOf } from './config-entry.js'
import { exportRules } from './nbd-rules.js'
import { keyLines } from './toml-lines.js'

/** An option as the file gives it. */
export interface Setting {
  readonly option: Option
  /** As on the command line, one after the other; `true` of an option that takes none. */
  readonly words: readonly string[] | true
  /** The value after the option's own parser. */
  readonly value: unknown
}

export interface ConfigFile {
  readonly path: string
  /** PATH[,DISK...]; undefined: not there. */
  readonly store: string | undefined
  readonly settings: readonly Setting[]
  readonly rules: ExportRules
}

/** What the file's keys may be. */
export interface Keys {
  readonly options: readonly Option[]
  /** Long names of options that cannot be served, and why: refused with the reason. */
  readonly notServed: ReadonlyMap<string, string>
}

/** Options that are about the command line itself. */
const NOT_KEYS: readonly string[] = ['config', 'no-config', 'check-config', 'version', 'help']
const STORE_KEY = 'path'
const NBD_TABLE = 'nbd'
/** In the NBD table: what `--nbd` is. */
const LISTEN_KEY = 'listen'
const RULE_KEYS: readonly string[] = ['default-export', 'export']

/** Throws an Error for people. */
export function readConfigFile(path: string, keys: Keys): ConfigFile {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`the configuration file cannot be read: ${reason}`, { cause: error })
  }
  return parseConfig(path, text, keys)
}

/** `path` is for messages. Throws an Error for people. */
export function parseConfig(path: string, text: string, keys: Keys): ConfigFile {
  const top = tableOf(path, text)
  const lines = keyLines(text)
  const entry = (at: string, value: unknown): Entry => ({
    path: at,
    value,
    wrong: (why) => {
      const line = lines.get(at) ?? lines.get(at.replace(/\.[^.]*$/, ''))
      return new Error(`${path}${line === undefined ? '' : `, line ${line}`}: ${at}: ${why}`)
    },
  })
  const known = new Map<string, Option>()
  for (const option of keys.options) {
    const name = option.long?.slice(2)
    if (name !== undefined && !NOT_KEYS.includes(name)) known.set(name, option)
  }
  const settings: Setting[] = []
  let store: string | undefined
  let rules: ExportRules | undefined
  const isNbdTable = isTable(top[NBD_TABLE])
  for (const [key, value] of Object.entries(top)) {
    if (key === STORE_KEY) store = wordsOf(entry(key, value)).join(',')
    else if (key === NBD_TABLE && isNbdTable) continue
    else settings.push(settingOf(entry(key, value), key, { known, keys, words: [STORE_KEY] }))
  }
  if (isNbdTable) {
    const table = top[NBD_TABLE] as Table
    for (const [key, value] of Object.entries(table)) {
      if (RULE_KEYS.includes(key)) continue
      const name = key === LISTEN_KEY ? NBD_TABLE : `${NBD_TABLE}-${key}`
      const inTable = new Map<string, Option>()
      for (const [long, option] of known) {
        if (long === NBD_TABLE) inTable.set(LISTEN_KEY, option)
        if (long.startsWith(`${NBD_TABLE}-`)) inTable.set(long.slice(NBD_TABLE.length + 1), option)
      }
      const at = entry(`${NBD_TABLE}.${key}`, value)
      if (!inTable.has(key)) throw at.wrong(unknownKey(key, [...inTable.keys(), ...RULE_KEYS]))
      settings.push(settingOf(at, name, { known, keys, words: [] }))
    }
    rules = exportRules(table, (at, value) => entry(`${NBD_TABLE}.${at}`, value))
  }
  refuseTwice(settings, entry)
  return { path, store, settings, rules: rules ?? { defaultExport: undefined, rules: undefined } }
}

function tableOf(path: string, text: string): Table {
  try {
    return parse(text, { unsafeKeyBehaviour: 'throw' })
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [what = ''] = error.message.split('\n')
    const why = what.replace(/^Invalid TOML document: /, '')
    throw new Error(`${path}, line ${error.line}: ${why}`, { cause: error })
  }
}

interface Vocabulary {
  readonly known: ReadonlyMap<string, Option>
  readonly keys: Keys
  /** Keys beside the options, for hints. */
  readonly words: readonly string[]
}

function settingOf(at: Entry, name: string, { known, keys, words: more }: Vocabulary): Setting {
  const reason = keys.notServed.get(name)
  if (reason !== undefined) throw at.wrong(`this release does not serve ${reason}`)
  const option = known.get(name)
  if (option === undefined) throw at.wrong(unknownKey(name, [...known.keys(), ...more]))
  if (!option.required) {
    if (typeof at.value !== 'boolean') throw at.wrong('it is true or false')
    return { option, words: at.value ? true : [], value: at.value ? true : undefined }
  }
  const words = wordsOf(at)
  // Who may be given once has no former value to go on from.
  const isRepeatable = Array.isArray(option.defaultValue)
  if (!isRepeatable && Array.isArray(at.value)) throw at.wrong('it is one value, not a list')
  try {
    const { parseArg } = option
    const value = words.reduce<unknown>(
      (before, word) => (parseArg === undefined ? word : parseArg(word, before)),
      option.defaultValue,
    )
    return { option, words, value }
  } catch (error) {
    if (error instanceof InvalidArgumentError) throw at.wrong(error.message)
    throw error
  }
}

/** `nbd-tls` and `tls` of the table are one option. */
function refuseTwice(
  settings: readonly Setting[],
  entry: (at: string, value: unknown) => Entry,
): void {
  const seen = new Set<Option>()
  for (const { option } of settings) {
    const name = option.long?.slice(2) ?? ''
    if (seen.has(option)) throw entry(name, undefined).wrong('it is there twice')
    seen.add(option)
  }
}
