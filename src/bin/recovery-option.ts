/** `-R max=N,interval=MS` (cluster spec, section 2.1). */
import { InvalidArgumentError } from 'commander'
import type { RecoveryThrottling } from '../wire/sheepdog/records.js'

const MAX_LIMIT = 2 ** 32 - 1

/** Either both numbers are positive, or both are 0: no throttling. */
export function recoveryThrottling(text: string): RecoveryThrottling {
  const found = new Map<string, number>()
  for (const part of text.split(',')) {
    const [, key, digits] = /^(max|interval)=(\d{1,16})$/.exec(part) ?? []
    const value = Number(digits)
    if (key === undefined || found.has(key) || !Number.isSafeInteger(value)) {
      throw new InvalidArgumentError(`'${part}' is neither max=N nor interval=MILLISECONDS.`)
    }
    found.set(key, value)
  }
  const max = found.get('max') ?? 0
  const intervalMs = found.get('interval') ?? 0
  if (max > MAX_LIMIT || (max === 0) !== (intervalMs === 0)) {
    throw new InvalidArgumentError(
      `max (at most ${MAX_LIMIT} objects) and interval (milliseconds) are both given, or both 0.`,
    )
  }
  return { max, intervalMs }
}
