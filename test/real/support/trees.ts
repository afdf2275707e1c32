/** Directory trees, compared entry by entry: kinds, permissions, sizes, bytes, where links point. */
import { lstat, readdir, readFile, readlink, rm } from 'node:fs/promises'
import { run } from './run.js'

const NAMED_MAX = 20
const MIB = 1 << 20

interface TreeEntry {
  readonly path: string
  readonly facts: string
  /** Of a file's content, 0 for everything else. */
  readonly bytes: number
}

/** What differs between two trees, one line an entry, at most a page of them. */
export async function differingEntries(one: string, other: string): Promise<string[]> {
  const [left, right] = await Promise.all([listTree(one), listTree(other)])
  const there = new Map(right.map(({ path, facts }) => [path, facts]))
  const found: string[] = []
  for (const { path, facts } of left) {
    if (found.length >= NAMED_MAX) return found
    const twin = there.get(path)
    there.delete(path)
    if (twin !== facts) found.push(`${path}: ${facts} / ${twin ?? 'absent'}`)
    else if (facts.startsWith('file') && !(await sameBytes(`${one}${path}`, `${other}${path}`))) {
      found.push(`${path}: bytes differ`)
    }
  }
  return [...found, ...[...there.keys()].map((path) => `${path}: only in ${other}`)]
}

/** Every entry below `top`, in order, without the root's own `lost+found`. */
export async function listTree(top: string, below = ''): Promise<TreeEntry[]> {
  const entries: TreeEntry[] = []
  for (const name of (await readdir(`${top}${below}`)).sort()) {
    const path = `${below}/${name}`
    if (path === '/lost+found') continue
    const facts = await lstat(`${top}${path}`)
    const mode = (facts.mode & 0o7777).toString(8)
    if (facts.isDirectory()) {
      entries.push({ path, facts: `directory ${mode}`, bytes: 0 }, ...(await listTree(top, path)))
    } else if (facts.isSymbolicLink()) {
      const target = await readlink(`${top}${path}`)
      entries.push({ path, facts: `link to ${target}`, bytes: 0 })
    } else entries.push({ path, facts: `file ${mode} ${facts.size}`, bytes: facts.size })
  }
  return entries
}

async function sameBytes(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([readFile(one), readFile(other)])
  return a.equals(b)
}

/** Copies what comes first below `source`, in the order of names, until `mebibytes` of file content are there, or all. */
export async function copyPart(source: string, into: string, mebibytes: number): Promise<void> {
  const chosen: string[] = []
  let left = mebibytes * MIB
  for (const { path, bytes } of await listTree(source)) {
    if (left <= 0) break
    chosen.push(`.${path}`)
    left -= bytes
  }
  // Names alone: a directory on the list must not bring everything below it.
  const names = ['--null', '--no-recursion', '--files-from=-']
  const archive = `${into}.tar`
  await run(['tar', '-C', source, '-cf', archive, ...names], { input: chosen.join('\0') })
  await run(['tar', '-C', into, '-xpf', archive, '--no-same-owner'])
  await rm(archive)
}

/** Unpacks an ext4 image without mounting it, so without being root. */
export async function unpackImage(image: string, into: string): Promise<void> {
  await run(['debugfs', '-R', `rdump / ${into}`, image], { timeoutMs: 300_000 })
}

export async function treeMebibytes(top: string): Promise<number> {
  const { stdout } = await run(['du', '-sm', top])
  return Number.parseInt(stdout, 10)
}
