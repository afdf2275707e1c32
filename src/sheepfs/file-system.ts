/** A cluster as a file system on a FUSE device. */
import type { Log } from '../base/log.js'
import type { RemoteVolumes } from '../remote/remote-volumes.js'
import type { StatFs } from '../wire/fuse/replies.js'
import type { FuseDevice } from '../world/fuse.js'
import type { Clock } from '../world/world.js'
import { Catalogue } from './catalogue.js'
import type { FsContext } from './context.js'
import { DiskTimes } from './disk-times.js'
import { Disks } from './disks.js'
import type { Directory } from './node.js'
import {
  clusterDirectory,
  configDirectory,
  nodeDirectory,
  vdiFiles,
  volumeDirectory,
} from './old-layout.js'
import { FuseSession } from './session.js'
import { clusterSpace } from './space.js'
import { fixedDirectory, Remembered } from './text-file.js'
import { vdisDirectory } from './vdi-tree.js'

/** How long the kernel may believe names and sizes. */
const VALID_MS = 1_000

export interface FileSystemOptions {
  readonly device: FuseDevice
  readonly volumes: RemoteVolumes
  readonly clock: Clock
  readonly log: Log
  readonly uid: number
  readonly gid: number
  readonly readOnly: boolean
  readonly pageCache: boolean
  readonly sheep: string
  readonly dog: FsContext['dog']
}

export interface FileSystem {
  /** Resolves with the reason when the mount is gone; undefined: it was unmounted. */
  readonly over: Promise<string | undefined>
  /** Unmounts, flushes what is open, gives locks back. Rejects when a last flush failed. */
  stop(): Promise<void>
}

export function serveFileSystem(options: FileSystemOptions): FileSystem {
  const { device, volumes, clock, log, readOnly } = options
  const times = new DiskTimes(clock)
  const fs: FsContext = {
    ...{ volumes, clock, readOnly, sheep: options.sheep, dog: options.dog },
    catalogue: new Catalogue(volumes.access, clock),
    disks: new Disks({ volumes, clock, log, times }),
    times,
    remembered: new Remembered(clock),
    pageCache: options.pageCache,
    attributeKeys: new Map(),
    mountedMs: clock.now(),
  }
  const session = new FuseSession({
    ...{ root: rootDirectory(fs), uid: options.uid, gid: options.gid, readOnly, log, clock },
    validMs: VALID_MS,
    writeBytesMax: device.writeBytesMax,
    statFs: () => statFs(fs),
    reply: (head, body) => void device.reply(head, body),
  })
  let ended: Promise<void> | undefined
  const end = (): Promise<void> => {
    ended ??= session.end().finally(() => volumes.end())
    return ended
  }
  const over = new Promise<string | undefined>((resolve) => {
    device.start({
      request: (bytes, release) => session.request(bytes, release),
      turn: () => undefined,
      closed: (reason) => resolve(reason),
    })
  })
  return {
    over,
    stop: () => {
      device.unmount()
      return end()
    },
  }
}

function rootDirectory(fs: FsContext): Directory {
  const hidden = new Set<string>()
  return fixedDirectory(
    new Map<string, () => Directory>([
      ['vdi', () => vdisDirectory(fs, vdiFiles(fs, hidden))],
      ['volume', () => volumeDirectory(fs, hidden)],
      ['cluster', () => clusterDirectory(fs)],
      ['node', () => nodeDirectory(fs)],
      ['config', () => configDirectory(fs)],
    ]),
    fs.mountedMs,
  )
}

async function statFs(fs: FsContext): Promise<StatFs> {
  const words = ['node', 'info', '-r']
  const nodeInfo = await fs.remembered.text('node info raw', () => fs.dog(words))
  const space = await clusterSpace(fs.volumes.access, nodeInfo.toString())
  return { ...space, blockBytes: 4096, files: (await fs.catalogue.families()).size }
}
