/** What the cluster has room for: the figures of all its nodes, divided by the copies a VDI gets by default. */
import type { RemoteAccess } from '../remote/remote-access.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { decodeClusterDefault } from '../wire/sheepdog/replies.js'
import { plainRequest } from '../wire/sheepdog/requests.js'

export interface Space {
  readonly totalBytes: number
  readonly freeBytes: number
}

/** `nodeInfo`: what `dog node info -r` prints, a line a node: id, size, used, available. */
export async function clusterSpace(access: RemoteAccess, nodeInfo: string): Promise<Space> {
  const { copies, policy } = decodeClusterDefault(
    await access.call(plainRequest({ opcode: Op.GET_CLUSTER_DEFAULT })),
  )
  // Of a coded object its strips take (data + parity) / data of its size.
  const data = policy === 0 ? 1 : (policy >> 4) * 2
  const factor = policy === 0 ? Math.max(1, copies) : (data + (policy & 15)) / data
  const rows = nodeInfo.split('\n').map((line) => line.split(' '))
  const nodes = rows.filter(([id = '']) => /^\d+$/.test(id))
  const sum = (column: number): number =>
    nodes.reduce((total, row) => total + (Number(row[column]) || 0), 0)
  return {
    totalBytes: Math.floor(sum(1) / factor),
    freeBytes: Math.floor(sum(3) / factor),
  }
}
