/**
 * How a real suite registers its tests: one after the other, skipped with the reason when a client is
 * missing on a developer's machine, failed for the same reason in CI.
 */
import test, { type ExecutionContext } from 'ava'
import { missingOf, type Tool } from './packages.js'
import { haveQemu52 } from './qemu52.js'

export type RealTest = (title: string, body: (t: ExecutionContext) => Promise<void>) => void

/** A registrar for tests that need `tools`. `npm test` has installed what it could before this. */
export function needing(...tools: readonly Tool[]): RealTest {
  return unlessMissing(missingOf(tools))
}

/** The same with QEMU 5.2, which `npm test` has built before this where it could. */
export function needingQemu52(...tools: readonly Tool[]): RealTest {
  const qemu = haveQemu52() ? [] : ['QEMU 5.2 (npm test builds it, as root on Debian)']
  return unlessMissing([...missingOf(tools), ...qemu])
}

function unlessMissing(missing: readonly string[]): RealTest {
  if (missing.length === 0) return (title, body) => test.serial(title, body)
  const reason = `missing: ${missing.join(', ')}`
  if (process.env.CI === 'true') {
    return (title) => test.serial(title, (t) => t.fail(reason))
  }
  return (title, body) => test.serial.skip(`${title} (${reason})`, body)
}
