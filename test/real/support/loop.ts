/** File systems inside of files, mounted by loop devices that end with the test. */
import { mkdir } from 'node:fs/promises'
import type { Owner } from './owner.js'
import { run, tryRun } from './run.js'

export interface LoopMount {
  readonly at: string
  /** Everything is in the file afterwards. */
  unmount(): Promise<void>
}

/** `options` as of mount(8); with `ro` the device is read-only, too. */
export async function loopMount(
  t: Owner,
  file: string,
  at: string,
  options = 'rw',
): Promise<LoopMount> {
  await mkdir(at, { recursive: true })
  const isReadOnly = options.split(',').includes('ro')
  const words = ['losetup', '-f', '--show', ...(isReadOnly ? ['-r'] : []), file]
  const device = (await run(words)).stdout.trim()
  t.teardown(async () => {
    await tryRun(['umount', '-l', at])
    await tryRun(['losetup', '-d', device])
  })
  await run(['mount', '-o', options, device, at])
  return {
    at,
    unmount: async () => {
      await run(['umount', at])
      await run(['losetup', '-d', device])
    },
  }
}
