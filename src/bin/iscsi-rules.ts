/** `[iscsi]` and `[[iscsi.target]]` of the configuration file: names of targets, and who may have which. */
import { LIMITS } from '../base/limits.js'
import type { ChapRules, Credentials } from '../doors/iscsi/chap.js'
import {
  BLOCK_BYTES,
  LUNS_MAX,
  TARGET_PREFIX,
  type TargetRules,
} from '../doors/iscsi/target-rules.js'
import {
  type Entry,
  type EntryAt,
  flagOf,
  isTable,
  refuseUnknown,
  ruleTables,
  subnetsOf,
  type Table,
  textOf,
  wordsOf,
} from './config-entry.js'

/** Keys of `[iscsi]` that are no options. */
export const ISCSI_RULE_KEYS: readonly string[] = [
  ...['prefix', 'target', 'discovery-chap', 'discovery-mutual-chap'],
]
/** Keys of a rule. */
export const TARGET_KEYS = [
  ...['name', 'luns', 'read-only', 'block-size', 'initiators', 'addresses', 'chap', 'mutual-chap'],
] as const
/** Keys of one user and his secret. */
export const CREDENTIAL_KEYS = ['user', 'secret'] as const
const PREFIX = /^(iqn\.\d{4}-\d{2}\.[a-z0-9.-]+(:[a-z0-9.:-]+)?|eui\.[0-9A-Fa-f]{16})$/
const PREFIX_BYTES_MAX = 128
/** What RFC 7143 (section 9.2.1) demands of secrets that are not kept from eavesdroppers. */
const SECRET_BYTES_MIN = 12
const SECRET_BYTES_MAX = 255

/** `table` is `[iscsi]`. Throws an Error for people, in which there is no secret. */
export function targetRules(table: Table, entryAt: EntryAt): TargetRules {
  const { prefix: given, target: list } = table
  const prefix = given === undefined ? TARGET_PREFIX : prefixOf(entryAt('prefix', given))
  const discovery = chapOf(table, 'discovery-chap', 'discovery-mutual-chap', entryAt)
  if (list === undefined) return { prefix, rules: undefined, discovery }
  const rules = ruleTables('iscsi.target', list, TARGET_KEYS, entryAt).map((rule) => ({
    name: rule.name,
    luns: rule.optional('luns', lunsOf),
    readOnly: rule.optional('read-only', flagOf) ?? false,
    blockBytes: rule.optional('block-size', blockSizeOf) ?? 512,
    initiators: rule.optional('initiators', wordsOf),
    addresses: rule.optional('addresses', subnetsOf),
    chap: chapOf(rule.table, 'chap', 'mutual-chap', rule.entryAt),
  }))
  return { prefix, rules, discovery }
}

function prefixOf(at: Entry): string {
  const text = textOf(at, PREFIX_BYTES_MAX)
  if (PREFIX.test(text)) return text
  throw at.wrong("it is a name such as 'iqn.2026-11.com.example'")
}

function lunsOf(at: Entry): string[] {
  const names = wordsOf(at)
  if (names.length > 0 && names.length <= LUNS_MAX) return names
  throw at.wrong(`it is a list of 1 to ${LUNS_MAX} names of disks, LUN 0 first`)
}

function blockSizeOf(at: Entry): (typeof BLOCK_BYTES)[number] {
  const found = BLOCK_BYTES.find((bytes) => bytes === at.value)
  if (found !== undefined) return found
  throw at.wrong(`it is one of ${BLOCK_BYTES.join(', ')}`)
}

function chapOf(
  table: Table,
  key: string,
  mutualKey: string,
  entryAt: EntryAt,
): ChapRules | undefined {
  const [list, own] = [table[key], table[mutualKey]]
  if (list === undefined) {
    if (own === undefined) return undefined
    throw entryAt(mutualKey, own).wrong(`it goes with ${key}`)
  }
  const at = entryAt(key, list)
  if (!Array.isArray(list) || list.length === 0 || !list.every(isTable)) {
    throw at.wrong("it is a list such as [{ user = 'alice', secret = '...' }]")
  }
  const users = list.map((one) => credentialsOf(one, key, entryAt))
  if (own === undefined) return { users, own: undefined }
  if (!isTable(own)) throw entryAt(mutualKey, own).wrong("it is { user = '...', secret = '...' }")
  const ours = credentialsOf(own, mutualKey, entryAt)
  if (users.some(({ secret }) => secret === ours.secret)) {
    // Who knows it could answer our challenge with our own answer (RFC 7143, section 12.1.3).
    throw entryAt(mutualKey, own).wrong(`its secret must differ from those of ${key}`)
  }
  return { users, own: ours }
}

function credentialsOf(table: Table, key: string, entryAt: EntryAt): Credentials {
  refuseUnknown(table, CREDENTIAL_KEYS, (at, value) => entryAt(`${key}.${at}`, value))
  const text = (name: string, bytesMax: number): string => {
    const at = entryAt(key, table)
    if (table[name] === undefined) throw at.wrong(`it has no ${name}`)
    return textOf({ ...at, value: table[name] }, bytesMax)
  }
  const user = text('user', LIMITS.nameBytesMax)
  const secret = text('secret', SECRET_BYTES_MAX)
  if (Buffer.byteLength(secret) < SECRET_BYTES_MIN) {
    throw entryAt(key, table).wrong(
      `the secret of ${user} is shorter than ${SECRET_BYTES_MIN} bytes`,
    )
  }
  return { user, secret }
}
