/** `[[nbd.export]]` of the configuration file: who may have which export, and how. */
import { LIMITS } from '../base/limits.js'
import type { ExportRule, ExportRules } from '../doors/nbd/export-rules.js'
import {
  type Entry,
  flagOf,
  isTable,
  subnetsOf,
  type Table,
  textOf,
  unknownKey,
  wordsOf,
} from './config-entry.js'

const RULE_KEYS = [
  ...['name', 'read-only', 'hidden', 'addresses', 'certificates', 'description'],
] as const
/** Name, '@' and tag of an export at their longest. */
const PATTERN_BYTES_MAX = 2 * LIMITS.nameBytesMax + 1
/** What is told to clients in one string of the protocol, with room for the name. */
const DESCRIPTION_BYTES_MAX = 2048

type EntryAt = (at: string, value: unknown) => Entry

/** `table` is `[nbd]`. Throws an Error for people. */
export function exportRules(table: Table, entryAt: EntryAt): ExportRules {
  const { export: list, 'default-export': named } = table
  const defaultExport =
    named === undefined ? undefined : textOf(entryAt('default-export', named), PATTERN_BYTES_MAX)
  if (list === undefined) return { defaultExport, rules: undefined }
  if (!Array.isArray(list) || !list.every(isTable)) {
    throw entryAt('export', list).wrong('rules are tables of their own, [[nbd.export]]')
  }
  const rules = list.map((rule, i) =>
    ruleOf(rule, (key, value) =>
      entryAt(key === '' ? `export[${i}]` : `export[${i}].${key}`, value),
    ),
  )
  return { defaultExport, rules }
}

function ruleOf(rule: Table, entryAt: EntryAt): ExportRule {
  for (const [key, value] of Object.entries(rule)) {
    const isKnown = RULE_KEYS.some((known) => known === key)
    if (!isKnown) throw entryAt(key, value).wrong(unknownKey(key, RULE_KEYS))
  }
  const optional = <T>(key: string, read: (at: Entry) => T): T | undefined =>
    rule[key] === undefined ? undefined : read(entryAt(key, rule[key]))
  const name = optional('name', (at) => textOf(at, PATTERN_BYTES_MAX))
  if (name === undefined) throw entryAt('', rule).wrong("it has no name, such as name = 'Alice'")
  return {
    name,
    readOnly: optional('read-only', flagOf) ?? false,
    hidden: optional('hidden', flagOf) ?? false,
    addresses: optional('addresses', subnetsOf),
    certificates: optional('certificates', wordsOf),
    description: optional('description', (at) => textOf(at, DESCRIPTION_BYTES_MAX)),
  }
}
