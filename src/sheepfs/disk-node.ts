/** `disk.raw` and `partitions/N.raw` as nodes. */

import { Code, SheepError } from '../base/codes.js'
import type { DiskView } from '../inspect/disk.js'
import { type Partition, readPartitionTable } from '../inspect/partitions.js'
import type { InodeHeader } from '../model/inode.js'
import { slotsOf } from '../model/inode.js'
import { leavesNow } from '../volume/hyper-leaves.js'
import { diskXattrs, VdiAttributes } from './attributes.js'
import { takenMs } from './catalogue.js'
import type { FsContext } from './context.js'
import { type DiskWindow, openDisk } from './disk-file.js'
import type { DiskTarget } from './disks.js'
import type { Directory, Facts, FileNode, OpenHow } from './node.js'
import { facts } from './text-file.js'

const READ_MODE = 0o444
const WRITE_MODE = 0o644
/** The most one look at a disk for its partitions reads at once. */
const VIEW_PIECE_BYTES = 1024 * 1024

export function targetOf(header: InodeHeader): DiskTarget {
  const { name, vid, snapId, snapCtime } = header
  return snapCtime === 0n ? { name } : { name, snapshot: { snapId, vid } }
}

export function attributesOf(fs: FsContext, header: InodeHeader): VdiAttributes {
  const snapId = header.snapCtime === 0n ? 0 : header.snapId
  const id = `${header.name}\0${snapId}`
  const seen = fs.attributeKeys.get(id) ?? new Set<string>()
  fs.attributeKeys.set(id, seen)
  return new VdiAttributes(fs.volumes.access, header.name, snapId, seen)
}

export interface DiskNodeOptions {
  readonly header: InodeHeader
  readonly window?: DiskWindow
  /** The size cannot be changed: see `DiskFileOptions`. */
  readonly isFixed: boolean
}

/** `header`: as it was a moment ago. */
export function diskNode(fs: FsContext, options: DiskNodeOptions): FileNode {
  const { header, window } = options
  const target = targetOf(header)
  const isSnapshot = target.snapshot !== undefined
  const open = (how: OpenHow) =>
    openDisk({ disks: fs.disks, target, ...options, isDirect: !fs.pageCache }, how)
  return {
    kind: 'file',
    ...(isSnapshot && { identity: header.vid }),
    xattrs: diskXattrs(() => fs.catalogue.header(header.vid), attributesOf(fs, header), isSnapshot),
    facts: () => diskFacts(fs, header, window),
    open,
    ...(!isSnapshot && {
      truncate: async (sizeBytes: number) => {
        const file = await open({ writes: true })
        try {
          await file.truncate?.(sizeBytes)
        } finally {
          await file.close()
        }
      },
    }),
  }
}

async function diskFacts(
  fs: FsContext,
  header: InodeHeader,
  window: DiskWindow | undefined,
): Promise<Facts> {
  const target = targetOf(header)
  const disk = fs.disks.of(target)
  const isSnapshot = target.snapshot !== undefined
  // Both at once, as if nothing had changed; most of the time nothing has.
  const guess = window === undefined ? usedBytes(fs, header).catch(() => undefined) : undefined
  const fresh = await freshOf(fs, header)
  const sizeBytes = disk?.isWritten === true ? disk.sizeBytes : fresh.sizeBytes
  const isSame = fresh.vid === header.vid && fresh.sizeBytes === header.sizeBytes
  const used = (isSame ? await guess : undefined) ?? (window ? 0 : await usedBytes(fs, fresh))
  const allocatedBytes = window?.sizeBytes ?? Math.min(used, sizeBytes)
  const modifiedMs = isSnapshot ? takenMs(header) : fs.times.look(header.name, disk !== undefined)
  const mode = isSnapshot ? READ_MODE : WRITE_MODE
  return facts({ sizeBytes: window?.sizeBytes ?? sizeBytes, allocatedBytes, modifiedMs, mode })
}

/**
 * As it is now, not as it was a moment ago: who has just closed a file sees the size it has. A node looked up before a snapshot was
 * taken is of the successor afterwards. Snapshots stay as they are.
 */
export async function freshOf(fs: FsContext, header: InodeHeader): Promise<InodeHeader> {
  if (header.snapCtime !== 0n) return header
  const { access } = fs.volumes
  const fresh = await access.readHeader(header.vid)
  if (fresh.snapCtime === 0n && fresh.name === header.name) return fresh
  return access.readHeader(await access.find(header.name, { kind: 'working' }))
}

/** Of what was found out about a disk: not after somebody here has written to it. */
export function textKey(fs: FsContext, kind: string, { name, vid }: InodeHeader): string {
  return `${kind} ${vid} ${fs.times.serial(name)} ${name}`
}

/**
 * From as many slots as the size asks for, or a hypervolume's index. What was found a moment ago may be told again, but for nothing at
 * all: `tar -S` archives a file without blocks without reading it.
 */
async function usedBytes(fs: FsContext, header: InodeHeader): Promise<number> {
  const key = textKey(fs, `slots of ${header.sizeBytes}`, header)
  const text = await fs.remembered.text(key, async () => {
    return `${(await usedObjects(fs, header)) * 2 ** header.blockSizeShift}`
  })
  const used = Number(text.toString())
  if (used === 0) fs.remembered.forget(key)
  return used
}

async function usedObjects(fs: FsContext, { vid, ...header }: InodeHeader): Promise<number> {
  const { access } = fs.volumes
  let used = 0
  if (header.storePolicy !== 0) {
    for (const { entries } of await leavesNow(access, vid)) {
      for (let at = 0; at < entries.count; at++) if (entries.vid(at) !== 0) used++
    }
    return used
  }
  const count = slotsOf(header.sizeBytes, header.blockSizeShift)
  for (const owner of await access.readSlots(vid, count)) if (owner !== 0) used++
  return used
}

/** The disk for those who look what is on it. `use` may read until it has ended. */
export async function withView<T>(
  fs: FsContext,
  header: InodeHeader,
  use: (view: DiskView) => Promise<T>,
): Promise<T> {
  const disk = await fs.disks.use(targetOf(header), false)
  try {
    const volume = await disk.ready()
    const read = async (offset: number, length: number): Promise<Buffer> => {
      const into = Buffer.alloc(length)
      for (let at = 0; at < length; at += VIEW_PIECE_BYTES) {
        const part = into.subarray(at, Math.min(length, at + VIEW_PIECE_BYTES))
        const code = await new Promise<Code>((done) => volume.read(offset + at, part, done))
        if (code !== Code.SUCCESS) throw new SheepError(code)
      }
      return into
    }
    return await use({ sizeBytes: disk.sizeBytes, read })
  } finally {
    await fs.disks.leave(disk, false)
  }
}

/** `partitions`: the ones that hold something of their own, as files of their size. */
export function partitionsDirectory(fs: FsContext, header: InodeHeader): Directory {
  const parts = async (): Promise<Partition[]> => {
    const text = await fs.remembered.text(textKey(fs, 'partitions', header), async () => {
      const table = await withView(fs, header, readPartitionTable)
      return JSON.stringify(table?.partitions.filter(({ isContainer }) => !isContainer) ?? [])
    })
    return JSON.parse(text.toString()) as Partition[]
  }
  return {
    kind: 'directory',
    facts: async () => facts({ mode: 0o755, modifiedMs: fs.mountedMs }),
    list: async () =>
      (await parts()).map(({ number }) => ({ name: `${number}.raw`, isDirectory: false })),
    child: async (name) => {
      const found = (await parts()).find(({ number }) => name === `${number}.raw`)
      if (found === undefined) return undefined
      const { startBytes, sizeBytes } = found
      return diskNode(fs, { header, window: { startBytes, sizeBytes }, isFixed: true })
    },
  }
}
