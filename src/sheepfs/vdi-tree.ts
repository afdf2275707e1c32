/**
 * `vdi/`: a folder a VDI, which comes and goes with it, and in it its snapshots, which look the same.
 *
 *   vdi/Alice/{disk.raw,info.json,map.json,attributes/,partitions/,changes-since/,snapshots/TAG/...}
 */
import { inspectDisk } from '../inspect/inspect.js'
import type { InodeHeader } from '../model/inode.js'
import { Errno } from '../wire/fuse/constants.js'
import { copiesText, describeHeader } from './attributes.js'
import { createdMs, type Family, takenMs } from './catalogue.js'
import { createVdi, deleteVdi, retagSnapshot, takeSnapshot } from './changes.js'
import type { FsContext } from './context.js'
import {
  attributesOf,
  diskNode,
  freshOf,
  partitionsDirectory,
  textKey,
  withView,
} from './disk-node.js'
import { FsError } from './errors.js'
import { changesText, mapText } from './maps.js'
import { fromFileName, toFileName } from './names.js'
import type { Directory, Listed, TreeNode } from './node.js'
import { facts, fixedDirectory, textFile } from './text-file.js'

const ID_PATTERN = /^\d{1,9}$/

/** A snapshot goes by its tag where that leads back to it, else by its id; both are found. */
function fileNameOf(snapshot: InodeHeader, family: Family): string {
  const { tag, snapId } = snapshot
  const namesakes = family.snapshots.filter((one) => one.tag === tag)
  const isPlain = tag !== '' && !ID_PATTERN.test(tag) && namesakes.length === 1
  return isPlain ? toFileName(tag) : `${snapId}`
}

function findSnapshot(family: Family, file: string): InodeHeader | undefined {
  const byName = family.snapshots.find((one) => fileNameOf(one, family) === file)
  return byName ?? family.snapshots.find(({ snapId }) => file === `${snapId}`)
}

async function mustFamily(fs: FsContext, name: string): Promise<Family> {
  const family = await fs.catalogue.family(name)
  if (family === undefined) throw new FsError(Errno.ENOENT)
  return family
}

const timeOf = (header: InodeHeader): number =>
  header.snapCtime === 0n ? createdMs(header) : takenMs(header)

async function infoText(fs: FsContext, header: InodeHeader): Promise<string> {
  const fresh = await freshOf(fs, header)
  const about = {
    ...describeHeader(fresh),
    size: fresh.sizeBytes,
    copies: copiesText(fresh),
    object_size: 2 ** fresh.blockSizeShift,
    snapshot_id: fresh.snapId,
    snapshot: fresh.snapCtime !== 0n,
    contents: await withView(fs, fresh, inspectDisk),
  }
  return `${JSON.stringify(about, undefined, 2)}\n`
}

/** What a VDI and a snapshot have alike. */
function contents(fs: FsContext, header: InodeHeader): Map<string, () => TreeNode> {
  const modifiedMs = timeOf(header)
  const text = (kind: string, make: () => Promise<string>): TreeNode =>
    textFile({
      content: () => fs.remembered.text(textKey(fs, kind, header), make),
      modifiedMs,
    })
  return new Map<string, () => TreeNode>([
    ['disk.raw', () => diskNode(fs, { header, isFixed: false })],
    ['info.json', () => text('info', () => infoText(fs, header))],
    ['map.json', () => text('map', async () => mapText(fs, await freshOf(fs, header)))],
    ['attributes', () => attributesDirectory(fs, header)],
    ['partitions', () => partitionsDirectory(fs, header)],
    ['changes-since', () => changesDirectory(fs, header)],
  ])
}

/** Since the snapshots there are now: one may have been taken after the kernel has looked up this directory. */
function changesDirectory(fs: FsContext, header: InodeHeader): Directory {
  const modifiedMs = timeOf(header)
  const isWorking = header.snapCtime === 0n
  const bases = async (): Promise<Map<string, InodeHeader>> => {
    const family = await fs.catalogue.family(header.name)
    // The inode of a working VDI becomes the snapshot's when one is taken.
    const others = family?.snapshots.filter(({ vid }) => isWorking || vid !== header.vid) ?? []
    return new Map(others.map((base) => [`${fileNameOf(base, family!)}.map`, base]))
  }
  return {
    kind: 'directory',
    facts: async () => facts({ mode: 0o755, modifiedMs }),
    list: async () => [...(await bases()).keys()].map((name) => ({ name, isDirectory: false })),
    child: async (name) => {
      const base = (await bases()).get(name)
      if (base === undefined) return undefined
      const content = () =>
        fs.remembered.text(textKey(fs, `changes ${base.vid}`, header), async () =>
          changesText(fs, await freshOf(fs, header), base),
        )
      return textFile({ content, modifiedMs })
    },
  }
}

function attributesDirectory(fs: FsContext, header: InodeHeader): Directory {
  const attributes = attributesOf(fs, header)
  const isSnapshot = header.snapCtime !== 0n
  const modifiedMs = timeOf(header)
  const file = (key: string, known: Buffer): TreeNode =>
    textFile({
      ...{ content: async () => (await attributes.get(key)) ?? known, modifiedMs },
      ...(!isSnapshot && { written: (text: Buffer) => attributes.set(key, text) }),
    })
  const keyOf = (name: string): string => {
    const key = fromFileName(name)
    if (key === undefined) throw new FsError(Errno.EINVAL)
    return key
  }
  return {
    kind: 'directory',
    facts: async () => facts({ mode: 0o755, modifiedMs }),
    list: async () =>
      (await attributes.keys()).map((key) => ({ name: toFileName(key), isDirectory: false })),
    child: async (name) => {
      const key = fromFileName(name)
      const value = key === undefined ? undefined : await attributes.get(key)
      return value === undefined ? undefined : file(key!, value)
    },
    ...(!isSnapshot && {
      makeFile: (name: string) => attributes.set(keyOf(name), Buffer.alloc(0), 'create'),
      rename: async (name: string, newName: string, mayReplace: boolean) => {
        const [key, newKey] = [keyOf(name), keyOf(newName)]
        const value = await attributes.get(key)
        if (value === undefined) throw new FsError(Errno.ENOENT)
        await attributes.set(newKey, value, mayReplace ? 'any' : 'create')
        await attributes.remove(key)
      },
      removeFile: async (name: string) => {
        if (!(await attributes.remove(keyOf(name)))) throw new FsError(Errno.ENOENT)
      },
    }),
  }
}

/** Throws unless a snapshot may be called that. */
function newTag(file: string, snapshots: readonly InodeHeader[]): string {
  const tag = fromFileName(file)
  // A tag of digits alone would be taken for an id.
  if (tag === undefined || tag === '' || ID_PATTERN.test(tag)) throw new FsError(Errno.EINVAL)
  if (snapshots.some((one) => one.tag === tag)) throw new FsError(Errno.EEXIST)
  return tag
}

function snapshotsDirectory(fs: FsContext, name: string): Directory {
  const change = async (run: () => Promise<void>): Promise<void> => {
    try {
      await run()
    } finally {
      fs.catalogue.changed(name)
      fs.remembered.clear()
    }
  }
  return {
    kind: 'directory',
    facts: async () => facts({ mode: 0o755, modifiedMs: fs.mountedMs }),
    list: async () => {
      const family = await mustFamily(fs, name)
      return family.snapshots.map((one) => {
        return { name: fileNameOf(one, family), isDirectory: true }
      })
    },
    child: async (file) => {
      const family = await fs.catalogue.family(name)
      const header = family === undefined ? undefined : findSnapshot(family, file)
      if (header === undefined) return undefined
      return fixedDirectory(contents(fs, header), takenMs(header))
    },
    makeDirectory: (file) =>
      change(async () => {
        const { working, snapshots } = await mustFamily(fs, name)
        const tag = newTag(file, snapshots)
        if (working === undefined) throw new FsError(Errno.ENOENT)
        await takeSnapshot(fs.volumes.access, await fs.volumes.access.readHeader(working.vid), tag)
      }),
    rename: (file, newFile) =>
      change(async () => {
        const family = await mustFamily(fs, name)
        const found = findSnapshot(family, file)
        if (found === undefined) throw new FsError(Errno.ENOENT)
        await retagSnapshot(fs.volumes.access, found, newTag(newFile, family.snapshots))
      }),
    removeDirectory: (file) =>
      change(async () => {
        const found = findSnapshot(await mustFamily(fs, name), file)
        if (found === undefined) throw new FsError(Errno.ENOENT)
        await deleteVdi(fs.volumes.access, name, found.snapId)
      }),
  }
}

/** Of a VDI that was deleted only its snapshots are left. */
function vdiDirectory(fs: FsContext, family: Family): Directory {
  const { name, working } = family
  const children = working === undefined ? new Map() : contents(fs, working)
  children.set('snapshots', () => snapshotsDirectory(fs, name))
  return fixedDirectory(children, working === undefined ? fs.mountedMs : createdMs(working))
}

/** `more`: the files sheepdog 1.0 has there; a VDI of such a name is found under volume/. */
export function vdisDirectory(fs: FsContext, more: ReadonlyMap<string, () => TreeNode>): Directory {
  const changed = (name: string): void => {
    fs.catalogue.changed(name)
    fs.remembered.clear()
  }
  return {
    kind: 'directory',
    facts: async () => facts({ mode: 0o755, modifiedMs: fs.mountedMs }),
    list: async () => {
      const files = [...more.keys()].map((name): Listed => ({ name, isDirectory: false }))
      const found = await fs.catalogue.families()
      for (const name of [...found.keys()].sort()) {
        // A listing may be read long after it was made.
        const node = (): TreeNode | undefined => {
          const family = fs.catalogue.latest.get(name)
          return family && vdiDirectory(fs, family)
        }
        if (!more.has(name)) files.push({ name: toFileName(name), isDirectory: true, node })
      }
      return files
    },
    child: async (file) => {
      const control = more.get(file)
      if (control !== undefined) return control()
      const name = fromFileName(file)
      const family = name === undefined ? undefined : await fs.catalogue.family(name)
      return family === undefined ? undefined : vdiDirectory(fs, family)
    },
    makeDirectory: async (file) => {
      const name = fromFileName(file)
      if (name === undefined || more.has(file)) throw new FsError(Errno.EINVAL)
      try {
        await fs.catalogue.made(await createVdi(fs.volumes.access, name))
      } catch (error) {
        changed(name)
        throw error
      }
    },
    rename: async (file, newFile) => {
      await mustFamily(fs, fromFileName(file) ?? '')
      throw new FsError(Errno.EOPNOTSUPP, noRename(file, newFile))
    },
    removeDirectory: async (file) => {
      const family = await mustFamily(fs, fromFileName(file) ?? '')
      // Its snapshots keep the folder; each of them is removed by itself.
      if (family.working === undefined) throw new FsError(Errno.ENOTEMPTY)
      await deleteVdi(fs.volumes.access, family.name, 0).finally(() => changed(family.name))
    },
  }
}

/**
 * A VDI's name is in the numbers of its objects, its snapshots' and its attributes' too. What can be had is a clone, and that is
 * another VDI: without history, and not there at once. So it is not passed off as a renamed one.
 */
function noRename(file: string, newFile: string): string {
  const words = `dog vdi snapshot -s TAG ${file}; dog vdi clone -s TAG ${file} ${newFile}`
  return `VDIs cannot be renamed; to have the content of ${file} in ${newFile}: ${words}`
}
