/** Follows a daemon's log file: which epoch it serves, and which one's recovery is over everywhere. */
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'

/** Epoch 1 of whoever was there: nothing to recover. */
const FORMATTED: Partial<NodeView> = { epoch: 1, nodes: undefined, gathered: 1 }

export interface NodeView {
  /** Epoch served last and its number of nodes; a log does not tell how many were there at a format. */
  epoch: number
  nodes: number | undefined
  /** Newest epoch whose recovery was heard to be over on every node. */
  gathered: number
}

export class NodeLog {
  readonly #path: string
  #offset = 0
  #rest = ''
  readonly #view: NodeView = { epoch: 0, nodes: undefined, gathered: 0 }

  constructor(path: string) {
    this.#path = path
  }

  /** Reads what was added since the last look. */
  look(): Readonly<NodeView> {
    if (!existsSync(this.#path)) return this.#view
    const file = openSync(this.#path, 'r')
    try {
      const size = fstatSync(file).size
      if (size < this.#offset) this.#offset = 0
      const added = Buffer.alloc(size - this.#offset)
      readSync(file, added, 0, added.length, this.#offset)
      this.#offset = size
      const lines = (this.#rest + added.toString()).split('\n')
      this.#rest = lines.pop() ?? ''
      for (const line of lines) this.#take(line)
    } finally {
      closeSync(file)
    }
    return this.#view
  }

  /** A fresh process begins without an epoch of its own. */
  restarted(): void {
    this.look()
    this.#view.epoch = 0
    this.#view.gathered = 0
  }

  #take(line: string): void {
    const served = /\bepoch\.serve\b.*\bepoch=(\d+).*\bnodes=(\d+)/.exec(line)
    if (served !== null) {
      this.#view.epoch = Number(served[1])
      this.#view.nodes = Number(served[2])
    }
    if (/\bcluster\.formatted\b/.test(line)) Object.assign(this.#view, FORMATTED)
    const gathered = /\brecovery\.gathered\b.*\bepoch=(\d+)/.exec(line)
    if (gathered !== null) this.#view.gathered = Number(gathered[1])
  }
}
