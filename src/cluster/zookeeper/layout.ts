/** Where a cluster keeps what below its path (cluster spec, section 10.2), and how nodes of our own are made. */
import { noBytes } from '../../base/bytes.js'
import { ZkCode, ZkError } from '../../wire/zookeeper/messages.js'
import type { ZkSession } from './session.js'

const DIGITS = 10
const PARENTS = ['queue', 'member', 'master', 'queue_pos', 'lock', 'entrance'] as const

export class Layout {
  readonly root: string
  readonly queue: string
  readonly members: string
  readonly masters: string
  readonly positions: string
  /** Ours: who joins takes turns, so that a first node can know that it is the first. */
  readonly entrance: string

  constructor(root: string) {
    this.root = root
    this.queue = `${root}/queue`
    this.members = `${root}/member`
    this.masters = `${root}/master`
    this.positions = `${root}/queue_pos`
    this.entrance = `${root}/entrance`
  }

  event(position: number): string {
    return `${this.queue}/${String(position).padStart(DIGITS, '0')}`
  }

  /** Makes what is missing, parents of the cluster's path too. */
  async ensure(zk: ZkSession): Promise<void> {
    const parts = this.root.split('/').slice(1)
    for (let i = 1; i <= parts.length; i++) await ensureNode(zk, `/${parts.slice(0, i).join('/')}`)
    for (const name of PARENTS) await ensureNode(zk, `${this.root}/${name}`)
  }
}

/** Number of a sequential node, by its path or name. */
export function sequenceOf(path: string): number {
  return Number(path.slice(-DIGITS))
}

/** Nobody can tell whether the change happened. */
export function isUnsure(error: unknown): boolean {
  if (!(error instanceof ZkError)) return false
  return error.code === ZkCode.CONNECTION_LOSS || error.code === ZkCode.SESSION_MOVED
}

export function isExpiry(error: unknown): boolean {
  return error instanceof ZkError && error.code === ZkCode.SESSION_EXPIRED
}

function isCode(error: unknown, code: number): boolean {
  return error instanceof ZkError && error.code === code
}

async function ensureNode(zk: ZkSession, path: string): Promise<void> {
  for (;;) {
    if ((await zk.exists(path)) !== undefined) return
    try {
      await zk.create(path, noBytes())
    } catch (error) {
      if (!isUnsure(error) && !isCode(error, ZkCode.NODE_EXISTS)) throw error
    }
  }
}

/** An ephemeral node of this session; false when another session holds one of that name. */
export async function claim(zk: ZkSession, path: string, data: Buffer): Promise<boolean> {
  for (;;) {
    try {
      await zk.create(path, data, { ephemeral: true })
      return true
    } catch (error) {
      if (isCode(error, ZkCode.NODE_EXISTS)) {
        const stat = await zk.exists(path)
        if (stat !== undefined) return stat.owner === zk.id
      } else if (!isUnsure(error)) throw error
    }
  }
}

/** An ephemeral sequential node of this session below `parent`; its path. */
export async function enlist(zk: ZkSession, parent: string, data: Buffer): Promise<string> {
  for (;;) {
    try {
      return await zk.create(`${parent}/`, data, { ephemeral: true, sequential: true })
    } catch (error) {
      if (!isUnsure(error)) throw error
    }
    await zk.sync(parent)
    for (const name of (await zk.children(parent)) ?? []) {
      const stat = await zk.exists(`${parent}/${name}`)
      if (stat?.owner === zk.id) return `${parent}/${name}`
    }
  }
}

/** Makes sure that it is gone. */
export async function remove(zk: ZkSession, path: string): Promise<void> {
  for (;;) {
    try {
      await zk.delete(path)
      return
    } catch (error) {
      if (isCode(error, ZkCode.NO_NODE)) return
      if (!isUnsure(error)) throw error
    }
  }
}
