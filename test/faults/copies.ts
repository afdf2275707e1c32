/**
 * Compares what all nodes' disks hold of every object, byte for byte: copies must be equal, and the parity of a
 * coded object must be what its data gives.
 */
import { existsSync } from 'node:fs'
import { open, readdir, readFile, stat } from 'node:fs/promises'
import { ErasureCode } from '../../src/model/erasure.js'
import type { Strips } from '../../src/model/policy.js'

const PIECE_BYTES = 1024 * 1024
const OBJECT = /^([0-9a-f]{16})(?:_(\d+))?$/
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

export interface Layout {
  /** Nodes that hold something of an object. */
  readonly width: number
  /** Undefined: copies. Coded are the data objects; the others are copied all the same. */
  readonly strips: Strips | undefined
}

/** One file with something of an object; `fragment` undefined: a copy of it. */
interface Piece {
  readonly node: number
  readonly path: string
  readonly fragment: number | undefined
}

export async function compareCopies(
  holders: readonly Holder[],
  { width, strips }: Layout,
): Promise<CopiesReport> {
  const objects = await findObjects(holders)
  const code = strips === undefined ? undefined : new ErasureCode(strips)
  const faults: string[] = []
  for (const [name, pieces] of [...objects].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (faults.length >= NAMED_MAX) break
    const nodes = pieces.map(({ node }) => node)
    const where = `${name} on nodes ${nodes.join(' ')}`
    const isCoded = pieces.some(({ fragment }) => fragment !== undefined)
    // Of things that are copied there are as many as there are nodes, if that is less.
    const wanted = isCoded ? width : Math.min(width, holders.length)
    if (pieces.length !== wanted || new Set(nodes).size !== wanted) {
      faults.push(`${where}: not on ${wanted} nodes`)
      continue
    }
    const difference =
      isCoded && code !== undefined
        ? await wrongFragment(pieces, code)
        : await firstDifference(pieces.map(({ path }) => path))
    if (difference !== undefined) faults.push(`${where}: ${difference}`)
  }
  return { objects: objects.size, faults }
}

async function findObjects(holders: readonly Holder[]): Promise<Map<string, Piece[]>> {
  const objects = new Map<string, Piece[]>()
  for (const { node, directories } of holders) {
    for (const directory of directories.filter((each) => existsSync(each))) {
      for (const file of await readdir(directory)) {
        const [, name, index] = OBJECT.exec(file) ?? []
        if (name === undefined) continue
        const fragment = index === undefined ? undefined : Number(index)
        const piece = { node, path: `${directory}/${file}`, fragment }
        objects.set(name, [...(objects.get(name) ?? []), piece])
      }
    }
  }
  return objects
}

async function wrongFragment(
  pieces: readonly Piece[],
  code: ErasureCode,
): Promise<string | undefined> {
  const fragments: (Buffer | undefined)[] = Array.from({ length: code.width }, () => undefined)
  for (const { path, fragment } of pieces) {
    if (fragment !== undefined) fragments[fragment] = await readFile(path)
  }
  const lacking = fragments.indexOf(undefined)
  if (lacking >= 0) return `fragment ${lacking} is nowhere`
  const lengths = new Set(fragments.map((fragment) => fragment?.length))
  if (lengths.size > 1) return `fragments of ${[...lengths].join(' and ')} bytes`
  const data = fragments.slice(0, code.strips.data)
  for (let index = code.strips.data; index < code.width; index++) {
    const expected = code.rebuild(index, data)
    const found = fragments[index]!
    if (found.equals(expected)) continue
    const at = found.findIndex((byte, i) => byte !== expected[i])
    return `parity fragment ${index} does not fit the data from byte ${at} on`
  }
  return undefined
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
