/**
 * Loads the native binding for the byte work of erasure coding (native-bindings/erasure/erasure.c). Without
 * it everything works as well, only slower; which one is in use is in the log of the start.
 */
import { createRequire } from 'node:module'
import type { Log } from '../../base/log.js'
import { portableStrips, type StripMath } from '../../base/strips.js'

/** build/native/erasure.node as seen from build/src/world/node. */
const ADDON = '../../../native/erasure.node'

/** Undefined when it is not built or does not load; `log` hears why. */
export function nativeStrips(log: Log): StripMath | undefined {
  try {
    return createRequire(import.meta.url)(ADDON) as StripMath
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    log.warn('erasure.binding.absent', { reason })
    return undefined
  }
}

/** The fastest there is. */
export function fastestStrips(log: Log): StripMath {
  return nativeStrips(log) ?? portableStrips
}
