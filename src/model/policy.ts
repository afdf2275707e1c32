/** Redundancy: replicas, or data and parity strips in a policy byte (objects spec, section 10). */
import { LIMITS } from '../base/limits.js'

export interface Redundancy {
  /** Replicas, or data plus parity strips. */
  readonly copies: number
  /** 0 replication, else (data / 2) << 4 | parity. */
  readonly policy: number
}

export interface Strips {
  readonly data: number
  readonly parity: number
}

const DATA_STRIPS: readonly number[] = [2, 4, 8, 16]

/** Strips a policy byte names; undefined for replication. Throws RangeError on an impossible byte. */
export function stripsOf(policy: number): Strips | undefined {
  if (policy === 0) return undefined
  if (!isPossiblePolicy(policy)) {
    throw new RangeError(`impossible copy policy 0x${policy.toString(16)}`)
  }
  return { data: (policy >> 4) * 2, parity: policy & 15 }
}

export function isPossiblePolicy(policy: number): boolean {
  return policy === 0 || (DATA_STRIPS.includes((policy >> 4) * 2) && (policy & 15) !== 0)
}

/** Of a coded object the policy says how many fragments there are, whatever else was asked for. */
export function copiesUnder({ copies, policy }: Redundancy): number {
  const strips = stripsOf(policy)
  return strips === undefined ? copies : strips.data + strips.parity
}

/** Copies and policy byte belong together; `copies` 0 and impossible policies (defect P16) do not. */
export function isRedundancy({ copies, policy }: Redundancy): boolean {
  if (!isPossiblePolicy(policy)) return false
  const strips = stripsOf(policy)
  if (strips !== undefined) return copies === strips.data + strips.parity
  return copies >= 1 && copies <= LIMITS.copiesMax
}

/** `3` or `4:2`; undefined when it is neither. */
export function parseRedundancy(text: string): Redundancy | undefined {
  const [, first, second] = /^(\d{1,2})(?::(\d{1,2}))?$/.exec(text) ?? []
  if (first === undefined) return undefined
  if (second === undefined) {
    const copies = Number(first)
    return copies >= 1 && copies <= LIMITS.copiesMax ? { copies, policy: 0 } : undefined
  }
  const strips = { data: Number(first), parity: Number(second) }
  if (!DATA_STRIPS.includes(strips.data) || strips.parity < 1 || strips.parity > 15)
    return undefined
  return { copies: strips.data + strips.parity, policy: ((strips.data / 2) << 4) | strips.parity }
}

export function redundancyText(redundancy: Redundancy): string {
  const strips = stripsOf(redundancy.policy)
  return strips === undefined ? `${redundancy.copies}` : `${strips.data}:${strips.parity}`
}
