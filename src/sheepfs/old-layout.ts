/** Files of sheepdog 1.0's sheepfs, where scripts rely on them: text of dog's, the disks under volume/, switches. */
import { Errno } from '../wire/fuse/constants.js'
import type { FsContext } from './context.js'
import { diskNode } from './disk-node.js'
import { FsError } from './errors.js'
import { fromFileName, toFileName } from './names.js'
import type { Directory, TreeNode } from './node.js'
import { facts, fixedDirectory, textFile } from './text-file.js'

type Children = Map<string, () => TreeNode>

function dogFile(fs: FsContext, ...words: readonly string[]): () => TreeNode {
  const content = () => fs.remembered.text(`dog ${words.join(' ')}`, () => fs.dog(words))
  return () => textFile({ content, modifiedMs: fs.clock.now() })
}

export function clusterDirectory(fs: FsContext): Directory {
  return fixedDirectory(
    new Map([
      ['info', dogFile(fs, 'cluster', 'info')],
      ['info.json', dogFile(fs, 'cluster', 'info', '--json')],
    ]),
    fs.mountedMs,
  )
}

export function nodeDirectory(fs: FsContext): Directory {
  return fixedDirectory(
    new Map([
      ['info', dogFile(fs, 'node', 'info')],
      ['info.json', dogFile(fs, 'node', 'info', '--json')],
      ['list', dogFile(fs, 'node', 'list')],
      ['list.json', dogFile(fs, 'node', 'list', '--json')],
    ]),
    fs.mountedMs,
  )
}

export function configDirectory(fs: FsContext): Directory {
  const fixed = (text: string): TreeNode =>
    textFile({ content: async () => Buffer.from(text), modifiedMs: fs.mountedMs })
  const pageCache = (): TreeNode =>
    textFile({
      content: async () => Buffer.from(fs.pageCache ? '1\n' : '0\n'),
      modifiedMs: fs.mountedMs,
      command: async (text) => {
        if (!/^\s*\d+\s*$/.test(text)) throw new FsError(Errno.EINVAL)
        fs.pageCache = Number(text) !== 0
      },
    })
  return fixedDirectory(
    new Map<string, () => TreeNode>([
      ['page_cache', pageCache],
      // The sheep decides whether it caches, not its clients.
      ['object_cache', () => fixed('0\n')],
      ['sheep_info', () => fixed(`${fs.sheep}\n`)],
    ]),
    fs.mountedMs,
  )
}

/** `volume/NAME` are all VDIs but those that were taken out; the names in `hidden` are. */
export function volumeDirectory(fs: FsContext, hidden: ReadonlySet<string>): Directory {
  return {
    kind: 'directory',
    facts: async () => facts({ mode: 0o755, modifiedMs: fs.mountedMs }),
    list: async () =>
      [...(await fs.catalogue.families()).values()]
        .filter(({ name, working }) => working !== undefined && !hidden.has(name))
        .map(({ name }) => ({ name: toFileName(name), isDirectory: false })),
    child: async (file) => {
      const name = fromFileName(file)
      if (name === undefined || hidden.has(name)) return undefined
      const header = (await fs.catalogue.family(name))?.working
      return header && diskNode(fs, { header, isFixed: true })
    },
  }
}

/** The files in vdi/ beside the folders of the VDIs. */
export function vdiFiles(fs: FsContext, hidden: Set<string>): Children {
  const control = (command: (name: string) => Promise<void>): TreeNode =>
    textFile({ content: async () => Buffer.alloc(0), modifiedMs: fs.mountedMs, command })
  const mount = async (name: string): Promise<void> => {
    if ((await fs.catalogue.family(name))?.working === undefined) throw new FsError(Errno.EINVAL)
    hidden.delete(name)
  }
  const unmount = async (name: string): Promise<void> => {
    const isThere = (await fs.catalogue.family(name))?.working !== undefined
    if (!isThere || hidden.has(name)) throw new FsError(Errno.EINVAL)
    hidden.add(name)
  }
  return new Map<string, () => TreeNode>([
    ['list', dogFile(fs, 'vdi', 'list')],
    ['mount', () => control(mount)],
    ['unmount', () => control(unmount)],
  ])
}
