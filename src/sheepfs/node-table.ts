/** The numbers the kernel knows nodes by. A node has one as long as the kernel remembers it (FORGET) or something of it is open. */
import type { Directory, TreeNode } from './node.js'

export const ROOT_NODE = 1
/** In listings: a number nobody has looked up yet (as libfuse has it). */
export const UNKNOWN_NODE = 0xffffffff

interface Known {
  path: string
  node: TreeNode
  lookups: number
}

export class NodeTable {
  readonly #known = new Map<number, Known>()
  readonly #ids = new Map<string, number>()
  #next = ROOT_NODE

  constructor(root: Directory) {
    this.enter('', root)
  }

  get size(): number {
    return this.#known.size
  }

  /** A look-up the kernel will count. The number stays with the path. */
  enter(path: string, node: TreeNode): number {
    const id = this.#ids.get(path) ?? this.#next++
    const known = this.#known.get(id)
    if (known !== undefined && isSame(known.node, node)) {
      known.node = node
      known.lookups++
      return id
    }
    // Something else has taken the name: what the kernel has open goes on under the old number.
    const fresh = known === undefined ? id : this.#next++
    this.#ids.set(path, fresh)
    this.#known.set(fresh, { path, node, lookups: 1 })
    return fresh
  }

  node(id: number): TreeNode | undefined {
    return this.#known.get(id)?.node
  }

  path(id: number): string {
    return this.#known.get(id)?.path ?? ''
  }

  idOf(path: string): number {
    return this.#ids.get(path) ?? UNKNOWN_NODE
  }

  /** It was renamed, with all that is below it: the numbers stay with what they were for. */
  moved(path: string, newPath: string): void {
    const isBelow = (one: string): boolean => one === path || one.startsWith(`${path}/`)
    for (const [id, known] of this.#known) {
      if (!isBelow(known.path)) continue
      if (this.#ids.get(known.path) === id) this.#ids.delete(known.path)
      known.path = newPath + known.path.slice(path.length)
      this.#ids.set(known.path, id)
    }
  }

  forget(id: number, lookups: number): void {
    const known = this.#known.get(id)
    if (known === undefined || id === ROOT_NODE) return
    known.lookups -= lookups
    if (known.lookups > 0) return
    this.#known.delete(id)
    if (this.#ids.get(known.path) === id) this.#ids.delete(known.path)
  }
}

function isSame(known: TreeNode, found: TreeNode): boolean {
  const [one, other] = [known, found].map((node) => (node.kind === 'file' ? node.identity : 0))
  return known.kind === found.kind && one === other
}
