/**
 * One sheep as a run of dog sees it: a connection made with the first request, and the requests
 * of the commands. A refusal is thrown as a SheepError whose message is 1.0's sentence for the
 * result.
 */
import { cString } from '../base/bytes.js'
import { Code, codeText, SheepError, toCode } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import { NAME_BYTES } from '../model/inode.js'
import { decodeNodes, NODE_BYTES, type SdNode, sortNodes } from '../model/node.js'
import { inodeOid, type Oid, type Vid } from '../model/oid.js'
import type { Redundancy } from '../model/policy.js'
import { SheepClient } from '../peer/client.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import {
  CLUSTER_INFO_BYTES,
  type ClusterInfo,
  decodeClusterInfo,
  VID_BITMAP_BYTES,
} from '../wire/sheepdog/records.js'
import {
  type ClusterDefault,
  decodeClusterDefault,
  decodeNodeReply,
  decodeVdiReply,
  type NodeReply,
} from '../wire/sheepdog/replies.js'
import { objectRequest, plainRequest, vdiRequest } from '../wire/sheepdog/requests.js'
import type { DogWorld } from './command.js'
import { errnoText } from './errno.js'
import { Exit, Failure, failed } from './failure.js'
import type { SnapshotSelector } from './options.js'
import type { Output } from './output.js'

/** The first failure may be a sheep that is just starting: one more try, as 1.0. */
const CONNECT_ATTEMPTS = 2

export interface SheepAddress {
  readonly host: string
  readonly port: number
}

export interface NewVdi extends Redundancy {
  readonly name: string
  readonly sizeBytes: number
  /** 0: none. */
  readonly base?: number
  /** With a base: true makes a snapshot of it, false a clone. */
  readonly snapshot?: boolean
  /** 0: the cluster's default. */
  readonly blockSizeShift: number
  readonly hyper?: boolean
}

/** Where and how an object is written. */
export interface ObjectWrite {
  readonly oid: Oid
  readonly offset: number
  readonly data: Uint8Array
  /** Of the volume; what the inode says. */
  readonly redundancy: Redundancy
  /** Acknowledged before it is durable. */
  readonly writeback?: boolean
  /** Create: starts as a copy of this object. */
  readonly cowOid?: Oid | undefined
}

export class Sheep {
  readonly #world: DogWorld
  readonly #out: Output
  readonly address: SheepAddress
  #client: Promise<SheepClient> | undefined
  /** Told once, however many requests were waiting. */
  #lost = false

  constructor(world: DogWorld, out: Output, address: SheepAddress) {
    this.#world = world
    this.#out = out
    this.address = address
  }

  /** Another sheep of the cluster; the caller closes it. */
  peer(node: SdNode): Sheep {
    return new Sheep(this.#world, this.#out, { host: node.host, port: node.port })
  }

  async close(): Promise<void> {
    const client = this.#client
    this.#client = undefined
    if (client !== undefined)
      await client.then(
        (open) => open.close(),
        () => undefined,
      )
  }

  /**
   * The reply, whatever its result. Rejects with EIO, the reason already printed, when there is
   * none.
   */
  async exchange(head: Buffer, payload?: Uint8Array): Promise<Frame> {
    this.#client ??= this.#connect()
    const client = await this.#client
    try {
      return await client.call(head, payload)
    } catch {
      if (!this.#lost) this.#out.error('failed to read a response')
      this.#lost = true
      throw new SheepError(Code.EIO)
    }
  }

  /** The reply to a request that was granted; else rejects with its result. */
  async ask(head: Buffer, payload?: Uint8Array): Promise<Frame> {
    const reply = await this.exchange(head, payload)
    if (reply.result !== Code.SUCCESS) {
      throw new SheepError(toCode(reply.result), codeText(reply.result))
    }
    return reply
  }

  async #connect(): Promise<SheepClient> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await SheepClient.connect(this.#world, this.address)
      } catch (error) {
        const { host, port } = this.address
        this.#out.error(`failed to connect to ${host}:${port}: ${errnoText(error)}`)
        if (attempt === CONNECT_ATTEMPTS) throw new SheepError(Code.EIO)
      }
    }
  }

  /** The members, in address order. Throws a Failure when there are none or nobody answers. */
  async nodes(): Promise<SdNode[]> {
    const head = plainRequest({
      opcode: Op.GET_NODE_LIST,
      dataLength: LIMITS.nodesMax * NODE_BYTES,
    })
    const reply = await this.ask(head).catch(() => {
      throw new Failure(Exit.system, ['Failed to get node list'])
    })
    const count = decodeNodeReply(reply).nodes
    if (count * NODE_BYTES > reply.body.length) throw malformed('a node list cut short')
    if (count === 0) throw failed('There are no active sheep daemons')
    return sortNodes(decodeNodes(reply.body, count))
  }

  async clusterInfo(): Promise<ClusterInfo> {
    const reply = await this.ask(
      plainRequest({ opcode: Op.CLUSTER_INFO, dataLength: CLUSTER_INFO_BYTES }),
    )
    if (reply.body.length < 48) throw malformed('a cluster description cut short')
    return decodeClusterInfo(reply.body)
  }

  async clusterDefault(): Promise<ClusterDefault> {
    return decodeClusterDefault(await this.ask(plainRequest({ opcode: Op.GET_CLUSTER_DEFAULT })))
  }

  async space(): Promise<NodeReply> {
    return decodeNodeReply(await this.ask(plainRequest({ opcode: Op.STAT_SHEEP })))
  }

  /** One bit a volume id: ids in use, or deleted ones among them. */
  async vidBitmap(opcode: typeof Op.READ_VDIS | typeof Op.READ_DEL_VDIS): Promise<Buffer> {
    const reply = await this.ask(plainRequest({ opcode, dataLength: VID_BITMAP_BYTES }))
    if (reply.body.length !== VID_BITMAP_BYTES) throw malformed('a volume bitmap of odd length')
    return reply.body
  }

  async lookup(name: string, which: SnapshotSelector): Promise<Vid> {
    const payload = nameAndTag(name, which.tag)
    const head = vdiRequest({
      opcode: Op.GET_VDI_INFO,
      flags: Flag.WRITE,
      dataLength: payload.length,
      snapId: which.snapId,
    })
    return decodeVdiReply(await this.ask(head, payload)).vid
  }

  async newVdi(vdi: NewVdi): Promise<Vid> {
    const payload = cString(vdi.name, NAME_BYTES)
    const head = vdiRequest({
      opcode: Op.NEW_VDI,
      flags: Flag.WRITE,
      dataLength: payload.length,
      sizeBytes: vdi.sizeBytes,
      base: vdi.base ?? 0,
      snapId: vdi.snapshot ? 1 : 0,
      copies: vdi.copies,
      policy: vdi.policy,
      blockSizeShift: vdi.blockSizeShift,
      storePolicy: vdi.hyper ? 1 : 0,
    })
    return decodeVdiReply(await this.ask(head, payload)).vid
  }

  async deleteVdi(name: string, which: SnapshotSelector): Promise<void> {
    const payload = nameAndTag(name, which.tag)
    const head = vdiRequest({
      opcode: Op.DEL_VDI,
      flags: Flag.WRITE,
      dataLength: payload.length,
      snapId: which.snapId,
    })
    await this.ask(head, payload)
  }

  /** One attribute: `record` names it, `flags` (AttributeFlag) say what becomes of it. */
  async attribute(record: Buffer, flags: number): Promise<{ vid: Vid; attributeId: number }> {
    const head = vdiRequest({
      opcode: Op.GET_VDI_ATTR,
      flags: Flag.WRITE | flags,
      dataLength: record.length,
    })
    return decodeVdiReply(await this.ask(head, record))
  }

  async readObject(oid: Oid, offset: number, length: number): Promise<Buffer> {
    const head = objectRequest({
      opcode: Op.READ_OBJ,
      flags: Flag.DIRECT,
      dataLength: length,
      oid,
      offset,
    })
    const { body } = await this.ask(head)
    if (body.length !== length) throw new SheepError(Code.EIO)
    return body
  }

  async writeObject(write: ObjectWrite): Promise<void> {
    await this.#put(Op.WRITE_OBJ, write)
  }

  /** Makes the object; bytes outside `data` are zero, or those of `cowOid`. */
  async createObject(write: ObjectWrite): Promise<void> {
    await this.#put(Op.CREATE_AND_WRITE_OBJ, write)
  }

  /**
   * Every write acknowledged so far is durable; a sheep that writes through refuses, and that is
   * as good.
   */
  async flush(vid: Vid): Promise<void> {
    const head = objectRequest({ opcode: Op.FLUSH_VDI, flags: Flag.CACHE, oid: inodeOid(vid) })
    const { result } = await this.exchange(head)
    if (result !== Code.SUCCESS && result !== Code.INVALID_PARMS) {
      throw new SheepError(toCode(result), codeText(result))
    }
  }

  async #put(opcode: number, write: ObjectWrite): Promise<void> {
    const cow = write.cowOid === undefined ? 0 : Flag.COW
    const head = objectRequest({
      opcode,
      flags: Flag.WRITE | cow | (write.writeback ? Flag.CACHE : Flag.DIRECT),
      dataLength: write.data.length,
      oid: write.oid,
      offset: write.offset,
      copies: write.redundancy.copies,
      policy: write.redundancy.policy,
      ...(write.cowOid === undefined ? {} : { cowOid: write.cowOid }),
    })
    await this.ask(head, write.data)
  }
}

function nameAndTag(name: string, tag: string): Buffer {
  return Buffer.concat([cString(name, NAME_BYTES), cString(tag, NAME_BYTES)])
}

function malformed(what: string): Failure {
  return new Failure(Exit.system, [`The sheep sent ${what}`])
}

/** The sentence of a refusal; anything else is our own fault and goes on up. */
export function reasonOf(error: unknown): string {
  if (error instanceof SheepError) return error.message
  throw error
}
