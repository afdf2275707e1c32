/** Compares every object's copies on the disks of all nodes, byte for byte. */
import { existsSync } from 'node:fs'
import { open, readdir, stat } from 'node:fs/promises'

const PIECE_BYTES = 1024 * 1024
const OBJECT = /^[0-9a-f]{16}$/
const NAMED_MAX = 20

export interface CopiesReport {
  readonly objects: number
  /** What is wrong, one line an object, at most a page of them. */
  readonly faults: readonly string[]
}

export interface Holder {
  readonly node: number
  /** Directories with object files. */
  readonly directories: readonly string[]
}

/** `copies`: how many nodes must hold each object, all alike. */
export async function compareCopies(
  holders: readonly Holder[],
  copies: number,
): Promise<CopiesReport> {
  const places = new Map<string, { node: number; path: string }[]>()
  for (const { node, directories } of holders) {
    for (const directory of directories.filter((each) => existsSync(each))) {
      for (const name of await readdir(directory)) {
        if (!OBJECT.test(name)) continue
        places.set(name, [...(places.get(name) ?? []), { node, path: `${directory}/${name}` }])
      }
    }
  }
  const faults: string[] = []
  for (const [name, held] of [...places].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (faults.length >= NAMED_MAX) break
    const nodes = held.map(({ node }) => node)
    if (held.length !== copies || new Set(nodes).size !== copies) {
      faults.push(`${name} is on ${held.length} nodes (${nodes.join(' ')}), not ${copies}`)
    }
    const difference = await firstDifference(held.map(({ path }) => path))
    if (difference !== undefined) {
      faults.push(`${name} on nodes ${nodes.join(' ')}: ${difference}`)
    }
  }
  return { objects: places.size, faults }
}

async function firstDifference(paths: readonly string[]): Promise<string | undefined> {
  const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size))
  if (new Set(sizes).size > 1) return `sizes ${sizes.join(' ')}`
  const files = await Promise.all(paths.map((path) => open(path)))
  try {
    const pieces = files.map(() => Buffer.allocUnsafe(PIECE_BYTES))
    for (let at = 0; at < sizes[0]!; at += PIECE_BYTES) {
      const read = await Promise.all(
        files.map(async (file, i) => (await file.read(pieces[i]!, 0, PIECE_BYTES, at)).bytesRead),
      )
      const views = pieces.map((piece, i) => piece.subarray(0, read[i]))
      const other = views.find((view) => !view.equals(views[0]!))
      if (other === undefined) continue
      const byte = other.findIndex((value, i) => value !== views[0]![i])
      return `bytes differ at ${at + byte}`
    }
    return undefined
  } finally {
    await Promise.all(files.map((file) => file.close()))
  }
}
