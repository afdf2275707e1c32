/**
 * Names of object files (objects spec, section 13.4):
 *
 *   working    <16 hex>            <16 hex>_<fragment>
 *   stale      <working>.<epoch>   below `.stale`
 *   temporary  <working>.tmp
 */
import { LIMITS } from '../base/limits.js'
import { type Oid, oidName } from '../model/oid.js'
import type { ObjectName } from './object-store.js'

/** The fragment number of a replica. */
export const REPLICA = -1

/** A second copy of an object found on another disk; everybody skips names that start with a dot. */
export const TWIN_PREFIX = '.twin.'

const EPOCH_MAX = 0xffffffff
const NO_OID = 0n
const ALL_ONES = 0xffffffffffffffffn
const WORKING = /^([0-9a-f]{16})(?:_(0|[1-9]\d?))?$/
const STALE = /^([0-9a-f_]{16,19})\.([1-9]\d{0,9})$/
const TMP = '.tmp'

export interface StaleName extends ObjectName {
  readonly epoch: number
}

export function workingFileName({ oid, fragment }: ObjectName): string {
  return fragment === REPLICA ? oidName(oid) : `${oidName(oid)}_${fragment}`
}

export function staleFileName(name: StaleName): string {
  return `${workingFileName(name)}.${name.epoch}`
}

export function temporaryFileName(name: ObjectName): string {
  return workingFileName(name) + TMP
}

/** Undefined for names that are no object's; 0 and all ones are nobody's id. */
export function parseWorkingName(text: string): ObjectName | undefined {
  const parts = WORKING.exec(text)
  if (parts === null) return undefined
  const oid = BigInt(`0x${parts[1]}`) as Oid
  const fragment = parts[2] === undefined ? REPLICA : Number(parts[2])
  if (oid === NO_OID || oid === ALL_ONES || fragment >= LIMITS.copiesMax) return undefined
  return { oid, fragment }
}

export function parseStaleName(text: string): StaleName | undefined {
  const parts = STALE.exec(text)
  const name = parts === null ? undefined : parseWorkingName(parts[1]!)
  const epoch = Number(parts?.[2])
  return name === undefined || epoch > EPOCH_MAX ? undefined : { ...name, epoch }
}

/** True for what a create leaves behind when the process dies in it; nothing else ending in .tmp. */
export function isTemporaryName(text: string): boolean {
  return text.endsWith(TMP) && parseWorkingName(text.slice(0, -TMP.length)) !== undefined
}
