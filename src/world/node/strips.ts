/**
 * Loads the native binding for the byte work of erasure coding (native-bindings/erasure/erasure.c). Without
 * it everything works as well, only slower; which one is in use is in the log of the start.
 */
import type { Log } from '../../base/log.js'
import { portableStrips, type StripMath } from '../../base/strips.js'
import { loadAddon } from './addon.js'

/** Undefined when it is not built or does not load; `log` hears why. */
export function nativeStrips(log: Log): StripMath | undefined {
  const { binding, absent } = loadAddon('erasure')
  if (absent === undefined) return binding as StripMath
  log.warn('erasure.binding.absent', { reason: absent })
  return undefined
}

let fastest: StripMath | undefined

/** The fastest there is; why it is not the fastest there could be is logged once. */
export function fastestStrips(log: Log): StripMath {
  fastest ??= nativeStrips(log) ?? portableStrips
  return fastest
}
