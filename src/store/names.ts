/**
 * Names of object files (objects spec, section 13.4):
 *
 *   working    <16 hex>            <16 hex>_<fragment>
 *   stale      <working>.<epoch>   below `.stale`
 *   temporary  <working>.tmp, <working>.<number>.tmp
 */
import { FRAGMENTS_MAX } from '../base/strips.js'
import { fragmentId, type Oid, oidName, type StoredId } from '../model/oid.js'

/** A second copy of an object found on another disk; everybody skips names that start with a dot. */
export const TWIN_PREFIX = '.twin.'

const EPOCH_MAX = 0xffffffff
const NO_OID = 0n
const ALL_ONES = 0xffffffffffffffffn
const WORKING = /^([0-9a-f]{16})(?:_(0|[1-9]\d?))?$/
const STALE = /^([0-9a-f_]{16,19})\.([1-9]\d{0,9})$/
const TMP = '.tmp'
const TEMPORARY = /^([0-9a-f_]{16,19})(?:\.\d{1,15})?\.tmp$/

export interface StaleName {
  readonly id: StoredId
  readonly epoch: number
}

export function workingFileName(id: StoredId): string {
  return oidName(id)
}

export function staleFileName({ id, epoch }: StaleName): string {
  return `${workingFileName(id)}.${epoch}`
}

export function temporaryFileName(id: StoredId): string {
  return workingFileName(id) + TMP
}

/** Of an object that is put together while others may be made under the same id. */
export function assemblyFileName(id: StoredId, serial: number): string {
  return `${workingFileName(id)}.${serial}${TMP}`
}

/** Undefined for names that are no object's; 0 and all ones are nobody's id. */
export function parseWorkingName(text: string): StoredId | undefined {
  const parts = WORKING.exec(text)
  if (parts === null) return undefined
  const oid = BigInt(`0x${parts[1]}`) as Oid
  if (oid === NO_OID || oid === ALL_ONES) return undefined
  if (parts[2] === undefined) return oid
  const index = Number(parts[2])
  return index < FRAGMENTS_MAX ? fragmentId(oid, index) : undefined
}

export function parseStaleName(text: string): StaleName | undefined {
  const parts = STALE.exec(text)
  const id = parts === null ? undefined : parseWorkingName(parts[1]!)
  const epoch = Number(parts?.[2])
  return id === undefined || epoch > EPOCH_MAX ? undefined : { id, epoch }
}

/** True for what a create leaves behind when the process dies in it; nothing else ending in .tmp. */
export function isTemporaryName(text: string): boolean {
  const working = TEMPORARY.exec(text)?.[1]
  return working !== undefined && parseWorkingName(working) !== undefined
}
