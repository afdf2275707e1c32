/**
 * A read from the owners of an object on other nodes: any copy will do. One that does not answer soon is not
 * waited for: the next one is asked as well, and the first success wins.
 */
import { Code, type Done } from '../base/codes.js'
import type { SdNode } from '../model/node.js'
import type { Oid } from '../model/oid.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import { replyCode } from './outcome.js'
import type { Peers } from './peers.js'

export interface RemoteRead {
  readonly peers: Peers
  /** Owners, at least one. */
  readonly nodes: readonly SdNode[]
  /** Which of them is asked first. */
  readonly start: number
  readonly epoch: number
  readonly oid: Oid
  readonly offset: number
  /** Of the volume, as this node knows it. */
  readonly blockSizeShift: number
  readonly into: Uint8Array
}

/** `done` gets SUCCESS with `into` filled, else the most telling failure when all have failed. */
export function readRemote(read: RemoteRead, done: Done): void {
  const { peers, into } = read
  const nodes = inOrder(read)
  let asked = 0
  let open = 0
  let isOver = false
  let worst: Code = Code.NO_OBJ
  const askNext = (): void => {
    const node = nodes[asked]
    if (node === undefined || isOver) return
    asked++
    open++
    const head = objectRequest({
      opcode: Op.READ_PEER,
      epoch: read.epoch,
      oid: read.oid,
      offset: read.offset,
      blockSizeShift: read.blockSizeShift,
      dataLength: into.length,
    })
    const onReply: Parameters<Peers['request']>[3] = (reply) => {
      open--
      if (isOver) return
      if (reply?.result === Code.SUCCESS && reply.body.length === into.length) {
        isOver = true
        into.set(reply.body)
        done(Code.SUCCESS)
        return
      }
      const code = replyCode(reply)
      if (code !== Code.NO_OBJ) worst = code === Code.SUCCESS ? Code.NETWORK_ERROR : code
      askNext()
      if (open > 0 || isOver) return
      isOver = true
      done(worst)
    }
    // The last one is waited for: there is nobody else.
    const late = asked < nodes.length ? askNext : undefined
    peers.request(node, head, undefined, onReply, late)
  }
  askNext()
}

/** From `start` round, those that are known to be silent last. */
function inOrder({ peers, nodes, start }: RemoteRead): readonly SdNode[] {
  if (nodes.length === 1) return nodes
  const round = nodes.map((_, i) => nodes[(start + i) % nodes.length]!)
  if (round.every((node) => peers.isQuick(node))) return round
  return [
    ...round.filter((node) => peers.isQuick(node)),
    ...round.filter((node) => !peers.isQuick(node)),
  ]
}
