/** Whoever starts things and ends them: a test, or the benchmark, which ava does not run. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'

/** What ends a test's or a benchmark's things with it. ava's execution context is one. */
export interface Owner {
  teardown(end: () => Promise<void>): void
  /** Read at the end: false makes the daemons' logs part of the report. */
  readonly passed: boolean
  log(text: string): void
}

/** A fresh directory that is gone when the test ends, whatever its end. */
export async function scratch(t: Owner, top = tmpdir()): Promise<string> {
  const directory = await mkdtemp(`${top}/sheepdog-test-`)
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}
