/** The question of FORCE_RECOVER: may the cluster start without the nodes it waits for (cluster spec, section 6.3)? */
import { Code } from '../base/codes.js'
import { encodeNodes } from '../model/node.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import { type Answer, failed } from './answer.js'

/**
 * FORCE_RECOVER unless the cluster waits for nodes of a known epoch; else that epoch and its nodes, which every
 * node checks against its own idea when the answer goes round. `roomBytes`: what the asker can take.
 */
export function forceAnswer(info: ClusterInfo, roomBytes: number): Answer {
  if (info.status !== 'wait' || info.epoch === 0) return failed(Code.FORCE_RECOVER)
  const body = encodeNodes(info.nodes)
  if (body.length > roomBytes) return failed(Code.BUFFER_SMALL)
  return { result: Code.SUCCESS, body, fill: (head) => void head.writeUInt32LE(info.epoch, 4) }
}
