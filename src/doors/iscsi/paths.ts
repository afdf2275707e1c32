/**
 * Several sheep as paths to one disk. One node has a volume open for block doors; to another one an initiator may come all
 * the same, and its bytes are passed on to the node that has it. So there is one logical unit whatever the path: commands,
 * reservations, resets and COMPARE AND WRITE of all initiators meet there. When that node dies, its lock ends, and the
 * node an initiator comes to next opens the volume itself.
 *
 * Each node is a target port group of one port (SPC-4, 5.15): that of the node which has the volume is active and
 * optimised, the others are a hop further away.
 */
import { createHash } from 'node:crypto'
import { codeName, codeOf, SheepError, toCode } from '../../base/codes.js'
import { describe } from '../../base/log.js'
import type { VdiAccess } from '../../model/access.js'
import { type NodeKey, nodeKey } from '../../model/node.js'
import { type NodeId, sameNode } from '../../model/vdi-state.js'
import type { SheepNode } from '../../sheep/node.js'
import { resolveExport } from '../../volume/export-name.js'
import { FrameReader, MalformedFrame, responseBodyLength } from '../../wire/sheepdog/frame.js'
import { iscsiPathRequest } from '../../wire/sheepdog/iscsi-path.js'
import { heardThrough } from '../../world/heard-through.js'
import type { Address, Connection, World } from '../../world/world.js'

const CONNECT_MS = 5_000
const EVERYWHERE: readonly string[] = ['', '0.0.0.0', '::']
/** What a cluster of one node has for a number, and tests without a node. */
export const ONLY_GROUP = 1

/** The other nodes, as one that serves iSCSI sees them. */
export interface Elsewhere {
  /** Of this node. */
  readonly group: number
  /** Whether a node of this number is in the cluster. */
  isPresent(group: number): boolean
  /**
   * A connection to the iSCSI door of the node that has the volume; undefined: it is this one's, or nobody's. `host` is
   * where the initiator came from. Rejects when that node cannot be reached, or has no such door.
   */
  connect(volumeName: string, host: string | undefined): Promise<Connection | undefined>
}

/** Number of a node's target port group, the same over all its lives. Two nodes may share one; then they pass for one. */
export function groupOf(node: NodeKey): number {
  const hash = createHash('sha256').update(node).digest()
  return (hash.readUInt16BE(0) % 0xffff) + 1
}

export function elsewhere(
  node: SheepNode,
  { network, clock }: Pick<World, 'network' | 'clock'>,
  vdis: VdiAccess,
): Elsewhere {
  const { state, locks } = node
  const group = groupOf(nodeKey(state.self))
  const holderOf = async (volumeName: string): Promise<NodeId | undefined> => {
    const { vid, isSnapshot } = await resolveExport(vdis, volumeName)
    const { owner, door } = locks.of(vid)
    return isSnapshot || !door || owner === undefined || state.isSelf(owner) ? undefined : owner
  }
  return {
    group,
    isPresent: (one) => state.members.some((member) => groupOf(nodeKey(member)) === one),
    connect: async (volumeName, host) => {
      const holder = await holderOf(volumeName)
      if (holder === undefined) return undefined
      const connection = await network.connect(holder, CONNECT_MS)
      await introduce(connection, iscsiPathRequest({ group, host }), clock)
      // A host that dies says nothing; that it has left the cluster is known.
      const check = (): void => {
        if (!state.members.some((member) => sameNode(member, holder))) connection.destroy()
      }
      const forget = locks.onEvent(check)
      return watched(connection, forget)
    },
  }
}

/**
 * A node's portals as SendTargets tells them. `came` is where an initiator came to, and is told first; a door that listens
 * everywhere is at the same address. Those at local sockets nobody can be told of.
 */
export function portalsOf(
  came: { readonly host: string | undefined; readonly port: number | undefined },
  doors: Iterable<Address>,
  group: number,
): string[] {
  const all = [came, ...[...doors].flatMap((door) => ('port' in door ? [door] : []))]
  const found = all.flatMap(({ host, port }) => {
    const at = host === undefined || EVERYWHERE.includes(host) ? came.host : host
    if (at === undefined || port === undefined) return []
    const numeric = at.replace(/^::ffff:/, '')
    return [`${numeric.includes(':') ? `[${numeric}]` : numeric}:${port},${group}`]
  })
  return [...new Set(found)]
}

/** Resolves when the other node takes what comes next for an initiator's. */
async function introduce(
  connection: Connection,
  request: Buffer,
  clock: World['clock'],
): Promise<void> {
  const reader = new FrameReader(responseBodyLength)
  try {
    await new Promise<void>((resolve, reject) => {
      const cancel = clock.after(CONNECT_MS, () => reject(new Error('it does not answer')))
      connection.on({
        data: (chunk) => {
          reader.give(Buffer.from(chunk))
          try {
            const reply = reader.next()
            if (reply === undefined) return
            cancel()
            if (reply.result === 0) resolve()
            else reject(new SheepError(toCode(reply.result)))
          } catch (error) {
            if (!(error instanceof MalformedFrame)) throw error
            reject(error)
          }
        },
        drain: () => undefined,
        close: (error) => reject(error ?? new Error('it closed the connection')),
      })
      connection.write(request)
    })
  } catch (error) {
    connection.destroy()
    throw error
  }
}

/** `connection`, and `over` called when it is closed. */
function watched(connection: Connection, over: () => void): Connection {
  return heardThrough(connection, (events) =>
    connection.on({
      data: (chunk) => events.data(chunk),
      drain: () => events.drain(),
      close: (error) => {
        over()
        events.close(error)
      },
    }),
  )
}

/** Why a path could not be had, for the log. */
export function reasonOf(error: unknown): string {
  return error instanceof SheepError ? codeName(codeOf(error)) : describe(error)
}
