/** `[[nbd.export]]` of the configuration file: who may have which export, and how. */
import type { ExportRules } from '../doors/nbd/export-rules.js'
import {
  type EntryAt,
  flagOf,
  PATTERN_BYTES_MAX,
  ruleTables,
  subnetsOf,
  type Table,
  textOf,
  wordsOf,
} from './config-entry.js'

/** Keys of a rule. */
export const EXPORT_KEYS = [
  ...['name', 'read-only', 'hidden', 'addresses', 'certificates', 'description'],
] as const
/** What is told to clients in one string of the protocol, with room for the name. */
const DESCRIPTION_BYTES_MAX = 2048

/** `table` is `[nbd]`. Throws an Error for people. */
export function exportRules(table: Table, entryAt: EntryAt): ExportRules {
  const { export: list, 'default-export': named } = table
  const defaultExport =
    named === undefined ? undefined : textOf(entryAt('default-export', named), PATTERN_BYTES_MAX)
  if (list === undefined) return { defaultExport, rules: undefined }
  const rules = ruleTables('nbd.export', list, EXPORT_KEYS, entryAt).map(({ name, optional }) => ({
    name,
    readOnly: optional('read-only', flagOf) ?? false,
    hidden: optional('hidden', flagOf) ?? false,
    addresses: optional('addresses', subnetsOf),
    certificates: optional('certificates', wordsOf),
    description: optional('description', (at) => textOf(at, DESCRIPTION_BYTES_MAX)),
  }))
  return { defaultExport, rules }
}
