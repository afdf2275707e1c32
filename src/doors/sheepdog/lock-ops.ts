/** What nodes of 1.0 tell each other of volumes that several use (wire/sheepdog/coherence.ts). */
import { coherenceRequest, decodeCoherence } from '../../wire/sheepdog/coherence.js'
import { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import type { Operation, OperationTable } from './context.js'

/** A client's word counts as this node's, as in 1.0; nobody asks whether it was heard. */
const cohere: Operation['run'] = ({ node }, request, reply) => {
  const { vid, validate } = decodeCoherence(request)
  node.ops.submit(new Frame(coherenceRequest({ vid, validate, serial: 0 })), reply)
}

export const LOCK_OPERATIONS: OperationTable = new Map([
  [Op.INODE_COHERENCE, { force: false, run: cohere }],
])
