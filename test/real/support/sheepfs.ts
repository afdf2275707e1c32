/** How tests that mount a cluster register. */
import { accessSync, constants } from 'node:fs'
import test from 'ava'
import type { Tool } from './packages.js'
import { needing, type RealTest } from './suite.js'

/** A registrar for tests that mount; skipped with the reason where nobody may. */
export function mountTest(...tools: readonly Tool[]): RealTest {
  const register = needing('fusermount3', ...tools)
  if (canMount()) return register
  const reason = 'missing: /dev/fuse, or the right to use it'
  if (process.env.CI === 'true') return (title) => test.serial(title, (t) => t.fail(reason))
  return (title, body) => test.serial.skip(`${title} (${reason})`, body)
}

function canMount(): boolean {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}
