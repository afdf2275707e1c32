/** A cluster mounted by a real sheepfs; unmounted with the test, whatever its end. */

import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises'
import type { TestCluster } from './cluster.js'
import type { Owner } from './owner.js'
import { SHEEPFS } from './paths.js'
import { type Running, run, start, tryRun, until } from './run.js'

const START_MS = 30_000
let mounts = 0

export class Mount {
  readonly at: string
  readonly running: Running

  constructor(at: string, running: Running) {
    this.at = at
    this.running = running
  }

  path(...names: readonly string[]): string {
    return [this.at, ...names].join('/')
  }

  disk(name: string): string {
    return this.path('vdi', name, 'disk.raw')
  }

  /** Unmounts, and waits until the process has flushed and given its locks back. Its exit status. */
  async unmount(): Promise<number | null> {
    await run(['fusermount3', '-u', this.at])
    return (await this.running.done).code
  }
}

/** `more`: options of sheepfs. */
export async function mountCluster(
  t: Owner,
  cluster: TestCluster,
  more: readonly string[] = [],
): Promise<Mount> {
  const at = `${cluster.directory}/mnt${++mounts}`
  await mkdir(at)
  const words = ['-f', '-a', cluster.node(0).host, '-p', `${cluster.node(0).port}`, ...more, at]
  const running = start([process.execPath, SHEEPFS, ...words])
  t.teardown(async () => {
    running.kill('SIGKILL')
    const { stdout, stderr } = await running.done
    await tryRun(['umount', '-fl', at])
    if (!t.passed) t.log(`--- sheepfs\n${stdout}${stderr}`)
  })
  await until(`a mount at ${at}`, START_MS, async () => {
    if (running.ended()) {
      const { stdout, stderr } = await running.done
      throw new Error(`sheepfs ended at once:\n${stdout}${stderr}`)
    }
    return (await readFile('/proc/self/mounts', 'utf8')).includes(` ${at} fuse.sheepfs`)
  })
  return new Mount(at, running)
}

/** Closed with the test, whatever has become of the mount by then. */
export async function opened(t: Owner, path: string, flags: string): Promise<FileHandle> {
  const file = await open(path, flags)
  t.teardown(async () => {
    // It may wait for sheep that are not there any more; the end of the mount ends that.
    if (file.fd >= 0) void file.close().catch(() => undefined)
  })
  return file
}
