/** The erasure codes in use: one a policy byte, made when first needed. */
import { portableStrips, type StripMath } from '../base/strips.js'
import { ErasureCode } from '../model/erasure.js'
import { stripsOf } from '../model/policy.js'

const CODES = new WeakMap<StripMath, Map<number, ErasureCode>>()

/** Undefined for replication. `policy` is one that can be. */
export function codeFor(policy: number, math: StripMath = portableStrips): ErasureCode | undefined {
  const strips = stripsOf(policy)
  if (strips === undefined) return undefined
  const known = CODES.get(math) ?? new Map<number, ErasureCode>()
  CODES.set(math, known)
  const code = known.get(policy) ?? new ErasureCode(strips, math)
  known.set(policy, code)
  return code
}
