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
 *   [[iscsi.target]]
 *   name = "Alice"
 *   initiators = ["iqn.1993-08.org.debian:*"]
 *   chap = [{ user = "alice", secret = "at least twelve bytes" }]
 *
 * A key that is not known is refused, with its line: a rule that is not heeded is no rule.
 */
import { readFileSync } from 'node:fs'
import { InvalidArgumentError, type Option } from 'commander'
import { parse, TomlError } from 'smol-toml'
import { NO_TARGET_RULES, type TargetRules } from '../doors/iscsi/target-rules.js'
import type { ExportRules } from '../doors/nbd/export-rules.js'
import { type Entry, isTable, type Table, unknownKey, wordsOf } from './config-entry.js'
import { ISCSI_RULE_KEYS, targetRules } from './iscsi-rules.js'
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
  readonly targets: TargetRules
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
/** Doors with tables of their own, and the keys of those that are no options. */
const TABLES: Readonly<Record<string, readonly string[]>> = {
  nbd: ['default-export', 'export'],
  iscsi: ISCSI_RULE_KEYS,
}
/** In these tables: what `--nbd` and `--iscsi` are. */
const LISTEN_KEY = 'listen'

function optionKeys(options: readonly Option[]): Map<string, Option> {
  const known = new Map<string, Option>()
  for (const option of options) {
    const name = option.long?.slice(2)
    if (name !== undefined && !NOT_KEYS.includes(name)) known.set(name, option)
  }
  return known
}

/** All keys that are heeded: at the `top`, and in the table of each door. */
export function configKeys({ options, notServed }: Keys): Readonly<Record<string, string[]>> {
  const longs = [...optionKeys(options).keys()].filter((long) => !notServed.has(long))
  const tables = Object.entries(TABLES).map(([door, ruleKeys]) => {
    const keys = [...tableKeys(door, longs).keys(), ...ruleKeys]
    return [door, keys] as const
  })
  return { top: [STORE_KEY, ...longs], ...Object.fromEntries(tables) }
}

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
  const known = optionKeys(keys.options)
  const settings: Setting[] = []
  let store: string | undefined
  const tables = new Map<string, Table>()
  for (const [key, value] of Object.entries(top)) {
    const isDoor = Object.hasOwn(TABLES, key) && isTable(value)
    if (key === STORE_KEY) store = wordsOf(entry(key, value)).join(',')
    else if (isDoor) tables.set(key, value)
    else settings.push(settingOf(entry(key, value), key, { known, keys, words: [STORE_KEY] }))
  }
  for (const [door, table] of tables) {
    const at = (key: string, value: unknown): Entry => entry(`${door}.${key}`, value)
    settings.push(...doorSettings(door, table, at, { known, keys, words: [] }))
  }
  const [nbd, iscsi] = [tables.get('nbd'), tables.get('iscsi')]
  const rules = nbd && exportRules(nbd, (at, value) => entry(`nbd.${at}`, value))
  const targets = iscsi && targetRules(iscsi, (at, value) => entry(`iscsi.${at}`, value))
  refuseTwice(settings, entry)
  return {
    ...{ path, store, settings, targets: targets ?? NO_TARGET_RULES },
    rules: rules ?? { defaultExport: undefined, rules: undefined },
  }
}

/** Keys of a door's table to the options they are. */
function tableKeys(door: string, options: Iterable<string>): Map<string, string> {
  const inTable = new Map<string, string>()
  for (const long of options) {
    if (long === door) inTable.set(LISTEN_KEY, long)
    if (long.startsWith(`${door}-`)) inTable.set(long.slice(door.length + 1), long)
  }
  return inTable
}

/** Options of a door in its table, without their prefix. */
function doorSettings(
  door: string,
  table: Table,
  entryAt: (key: string, value: unknown) => Entry,
  vocabulary: Vocabulary,
): Setting[] {
  const ruleKeys = TABLES[door] ?? []
  const inTable = tableKeys(door, vocabulary.known.keys())
  const keys = Object.entries(table).filter(([key]) => !ruleKeys.includes(key))
  return keys.map(([key, value]) => {
    const at = entryAt(key, value)
    const long = inTable.get(key)
    if (long === undefined) throw at.wrong(unknownKey(key, [...inTable.keys(), ...ruleKeys]))
    return settingOf(at, long, vocabulary)
  })
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
