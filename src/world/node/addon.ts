/**
 * Loads the native bindings (native-bindings/, built into build/native). A program works without any of them, except for
 * what a caller says when it gets none.
 *
 * The environment variable SHEEPDOG_WITHOUT hides bindings that are there: names with commas between, or `all`. So one
 * sees on a machine with a compiler what happens on one without.
 */
import { createRequire } from 'node:module'
import { PACKAGE_ROOT } from './package.js'

export const ADDONS = ['posix', 'erasure', 'cpg', 'service', 'fuse', 'nbd'] as const
export type AddonName = (typeof ADDONS)[number]

/** What the binding exports, or why there is none. */
export type Loaded =
  | { readonly binding: unknown; readonly absent?: undefined }
  | { readonly binding?: undefined; readonly absent: string }

const load = createRequire(import.meta.url)

/** Never throws. */
export function loadAddon(name: AddonName): Loaded {
  const hidden = (process.env.SHEEPDOG_WITHOUT ?? '').split(',')
  if (hidden.includes(name) || hidden.includes('all')) {
    return { absent: `SHEEPDOG_WITHOUT hides the binding '${name}'` }
  }
  try {
    return { binding: load(`${PACKAGE_ROOT}/build/native/${name}.node`) as unknown }
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n', 1)[0] : String(error)
    return { absent: `the binding '${name}' is not built or does not load (${reason})` }
  }
}
