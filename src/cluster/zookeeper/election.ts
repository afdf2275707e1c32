/**
 * Who answers a JOIN (cluster spec, section 10.6): the member with the lowest /master number. Where no member lives, the
 * joiner answers itself; while it has the entrance nobody becomes a member but by its own JOIN.
 */
import type { SdNode } from '../../model/node.js'
import { type Layout, sequenceOf } from './layout.js'
import { nodeText } from './record.js'
import type { ZkSession } from './session.js'

export interface ElectionOptions {
  readonly zk: ZkSession
  readonly layout: Layout
  readonly self: SdNode
  /** The answer to one of the questions may have become another one. */
  readonly changed: () => void
}

export class Election {
  readonly #options: ElectionOptions
  /** Owners of the master nodes seen, by name; they never change. */
  readonly #owners = new Map<string, string>()

  constructor(options: ElectionOptions) {
    this.#options = options
  }

  /** No member lives. */
  readonly isAlone = async (): Promise<boolean> => {
    const { zk, layout, self, changed } = this.#options
    const names = (await zk.children(layout.members, changed)) ?? []
    return names.every((name) => name === nodeText(self))
  }

  /** Of these members, this one answers. A living joiner with a lower number does not count. */
  readonly isMaster = async (members: readonly SdNode[]): Promise<boolean> => {
    const { zk, layout, self, changed } = this.#options
    const names = (await zk.children(layout.masters, changed)) ?? []
    const texts = new Set(members.map(nodeText))
    for (const name of names.sort((a, b) => sequenceOf(a) - sequenceOf(b))) {
      const owner = this.#owners.get(name) ?? (await this.#ownerOf(name))
      if (owner !== undefined && texts.has(owner)) return owner === nodeText(self)
    }
    return false
  }

  async #ownerOf(name: string): Promise<string | undefined> {
    const { zk, layout } = this.#options
    const found = await zk.get(`${layout.masters}/${name}`)
    if (found === undefined) return undefined
    const end = found.data.indexOf(0)
    const owner = found.data.subarray(0, end < 0 ? undefined : end).toString('utf8')
    this.#owners.set(name, owner)
    return owner
  }
}
