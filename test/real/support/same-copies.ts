/** Compares the object files of several stores: with as many copies as nodes they must be equal. */
import { open, readdir, stat } from 'node:fs/promises'
import type { TestCluster } from './cluster.js'
import { until } from './run.js'

const PIECE_BYTES = 4 * 1024 * 1024
const OBJECT = /^[0-9a-f]{16}$/
const NAMED_MAX = 20
/** How long copies may take to meet once recovery is over. */
const EQUAL_MS = 60_000

/** What differs between the object directories, one line an object, at most a page of them. */
export async function differingObjects(directories: readonly string[]): Promise<string[]> {
  const lists = await Promise.all(directories.map(objectsOf))
  const all = [...new Set(lists.flat())].sort()
  const found: string[] = []
  for (const name of all) {
    if (found.length >= NAMED_MAX) break
    const lacking = directories.filter((_, i) => !lists[i]!.includes(name))
    if (lacking.length > 0) found.push(`${name} is not in ${lacking.join(', ')}`)
    else if (!(await equalFiles(directories.map((directory) => `${directory}/${name}`)))) {
      found.push(`${name} differs`)
    }
  }
  return found
}

export async function objectsOf(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => OBJECT.test(name))
}

async function equalFiles(paths: readonly string[]): Promise<boolean> {
  const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size))
  if (new Set(sizes).size > 1) return false
  const files = await Promise.all(paths.map((path) => open(path)))
  try {
    const pieces = files.map(() => Buffer.allocUnsafe(PIECE_BYTES))
    for (let at = 0; at < sizes[0]!; at += PIECE_BYTES) {
      const got = await Promise.all(
        files.map(async (file, i) => (await file.read(pieces[i]!, 0, PIECE_BYTES, at)).bytesRead),
      )
      const first = pieces[0]!.subarray(0, got[0])
      if (!pieces.every((piece, i) => first.equals(piece.subarray(0, got[i])))) return false
    }
    return true
  } finally {
    await Promise.all(files.map((file) => file.close()))
  }
}

/** What still differs when recovery has ended and the copies have had time to meet. */
export async function copiesSettled(cluster: TestCluster): Promise<string[]> {
  await cluster.recovered()
  const directories = cluster.nodes.map((node) => node.objects)
  let last: string[] = []
  const settled = until('equal copies', EQUAL_MS, async () => {
    last = await differingObjects(directories)
    return last.length === 0
  })
  return settled.then(
    () => [],
    () => last,
  )
}
