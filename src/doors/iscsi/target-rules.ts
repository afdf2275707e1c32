/**
 * Targets: their names, what is behind them and who may have them. Without rules every VDI is a target of one LUN, and
 * every snapshot one that cannot be written. Rules only grant, in order, the first that fits; where there are any, what
 * none of them grants is refused.
 */
import { isLike } from '../../model/pattern.js'
import type { Subnet } from '../../model/subnet.js'
import { ISCSI_LIMITS } from '../../wire/iscsi/constants.js'
import type { ChapRules } from './chap.js'

export const TARGET_PREFIX = 'iqn.2026-11.io.sheepdog'
export const BLOCK_BYTES = [512, 4096] as const
/** LUNs of one target: what one byte of the address counts. */
export const LUNS_MAX = 255

export interface TargetRule {
  /** What stands behind the prefix: a pattern of VDI names, or with `luns` the target's own name. */
  readonly name: string
  /** VDIs and snapshots (`Alice`, `Alice@tag`), LUN 0 first; undefined: the VDI of the target's name. */
  readonly luns: readonly string[] | undefined
  readonly readOnly: boolean
  readonly blockBytes: (typeof BLOCK_BYTES)[number]
  /** Patterns of initiators' names; undefined: all. */
  readonly initiators: readonly string[] | undefined
  /** Undefined: from everywhere. */
  readonly addresses: readonly Subnet[] | undefined
  /** Undefined: nobody has to prove anything. */
  readonly chap: ChapRules | undefined
}

export interface TargetRules {
  readonly prefix: string
  /** Undefined: everybody may have everything. */
  readonly rules: readonly TargetRule[] | undefined
  /** Whom a discovery session has to prove to be; undefined: nobody. */
  readonly discovery: ChapRules | undefined
}

export const NO_TARGET_RULES: TargetRules = {
  ...{ prefix: TARGET_PREFIX, rules: undefined, discovery: undefined },
}

const OPEN_TO_ALL: TargetRule = {
  ...{ name: '*', luns: undefined, readOnly: false, blockBytes: 512, initiators: undefined },
  ...{ addresses: undefined, chap: undefined },
}

/** An initiator as the rules see it. */
export interface Caller {
  readonly initiator: string
  /** Numeric address; undefined: it came over a local socket. */
  readonly host: string | undefined
}

const PLAIN = /^[A-Za-z0-9.:@_-]$/

/** The target's name for a VDI's: what an iSCSI name cannot have is written as %XX. Undefined: too long for one. */
export function targetNameOf(prefix: string, name: string): string | undefined {
  const encoded = Array.from(Buffer.from(name), (byte) => {
    const char = String.fromCharCode(byte)
    return PLAIN.test(char) ? char : `%${byte.toString(16).padStart(2, '0')}`
  }).join('')
  const target = `${prefix}:${encoded}`
  return Buffer.byteLength(target) <= ISCSI_LIMITS.nameBytesMax ? target : undefined
}

/** What stands behind the prefix, decoded; undefined: another prefix. */
export function nameOfTarget(prefix: string, target: string): string | undefined {
  if (!target.toLowerCase().startsWith(`${prefix.toLowerCase()}:`)) return undefined
  const bytes: number[] = []
  const text = Buffer.from(target.slice(prefix.length + 1))
  for (let i = 0; i < text.length; i++) {
    const hex =
      text[i] === 0x25 ? /^[0-9a-fA-F]{2}/.exec(text.toString('latin1', i + 1, i + 3)) : null
    bytes.push(hex === null ? text[i]! : Number.parseInt(hex[0], 16))
    if (hex !== null) i += 2
  }
  return Buffer.from(bytes).toString('utf8')
}

/** The rule that grants `name`; undefined: refused. */
export function grantOf(
  { rules }: TargetRules,
  name: string,
  caller: Caller,
): TargetRule | undefined {
  if (rules === undefined) return OPEN_TO_ALL
  return rules.find((rule) => fits(rule, name) && admits(rule, caller))
}

function fits({ luns, name: pattern }: TargetRule, name: string): boolean {
  // Initiators that write names in lower case (Windows, VMware) get the rule of the name as it is.
  return luns === undefined ? isLike(pattern, name) : pattern.toLowerCase() === name.toLowerCase()
}

function admits({ initiators, addresses }: TargetRule, { initiator, host }: Caller): boolean {
  const isKnown = initiators?.some((pattern) => isLike(pattern, initiator)) ?? true
  return isKnown && (addresses?.some((subnet) => subnet.has(host)) ?? true)
}
