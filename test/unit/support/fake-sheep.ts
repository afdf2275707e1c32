/**
 * A sheep of memory for tests of its clients: real frames over an in-memory network, volumes that
 * can be made, written, snapshotted and deleted, no replication and no disks. Every answer can be
 * replaced by opcode, and every request is kept for looking at.
 */
import { cString, readCString } from '../../../src/base/bytes.js'
import { Code } from '../../../src/base/codes.js'
import { vidHash } from '../../../src/model/hash.js'
import {
  decodeInodeHeader,
  encodeInodeHeader,
  INODE_HEADER_BYTES,
  type InodeHeader,
  NAME_BYTES,
  SLOTS_OFFSET,
  sdTime,
} from '../../../src/model/inode.js'
import { encodeNodes, type SdNode } from '../../../src/model/node.js'
import { asVid, inodeOid, type Oid, oidKind, oidVid, type Vid } from '../../../src/model/oid.js'
import { Frame, FrameReader, requestBodyLength } from '../../../src/wire/sheepdog/frame.js'
import { ClusterFlag, Flag, Op } from '../../../src/wire/sheepdog/opcodes.js'
import {
  CLUSTER_INFO_BYTES,
  type EpochLogRecord,
  encodeClusterInfo,
  encodeEpochLogRecord,
  VID_BITMAP_BYTES,
} from '../../../src/wire/sheepdog/records.js'
import {
  replyHead,
  setClusterDefault,
  setNodeReply,
  setVdiReply,
} from '../../../src/wire/sheepdog/replies.js'
import {
  decodeClusterFields,
  decodeVdiFields,
  objectFields,
  vdiRequest,
} from '../../../src/wire/sheepdog/requests.js'
import type { Address, Connection, ConnectionEvents, Network } from '../../../src/world/world.js'
import { SparseBytes } from './sparse-bytes.js'

export interface Answer {
  readonly result?: number
  readonly body?: Buffer
  /** Fills the union of the reply. */
  readonly union?: (head: Buffer) => void
}

/** Undefined: no answer at all, the connection ends. `port`: of the sheep that was asked. */
export type Answerer = (request: Frame, port: number) => Answer | undefined

interface Node extends SdNode {
  readonly freeBytes?: number
}

const ok: Answer = {}
const refuse = (result: Code): Answer => ({ result })

export class FakeSheep {
  /** Replaces what the sheep would say. */
  readonly answers = new Map<number, Answerer>()
  /** Requests in the order they came. */
  readonly requests: Frame[] = []
  readonly objects = new Map<Oid, SparseBytes>()
  readonly vids = new Set<Vid>()
  readonly deleted = new Set<Vid>()
  readonly log: EpochLogRecord[] = []
  nodes: Node[]
  nowMs = 0
  formatted: ReturnType<typeof decodeClusterFields> & { store: string } = {
    ...{ ctime: 0n, copies: 0, policy: 0, clusterFlags: ClusterFlag.AUTO_VNODES },
    ...{ nodeSlots: 0, blockSizeShift: 22, store: '' },
  }

  constructor(nodes: Node[]) {
    this.nodes = nodes
  }

  /** Connects to the ports of the nodes; anything else is refused as by a kernel. */
  readonly network: Network = {
    listen: () => Promise.reject(new Error('nobody listens here')),
    connect: (to: Address) => {
      const port = 'port' in to ? to.port : 0
      if (this.nodes.some((node) => node.port === port)) {
        return Promise.resolve(this.#accept(port))
      }
      const error = new Error(`connect ECONNREFUSED ${port}`)
      return Promise.reject(Object.assign(error, { code: 'ECONNREFUSED' }))
    },
  }

  header(vid: Vid): InodeHeader {
    return decodeInodeHeader(this.#object(inodeOid(vid)).read(0, INODE_HEADER_BYTES))
  }

  slot(vid: Vid, index: number): number {
    return this.#object(inodeOid(vid))
      .read(SLOTS_OFFSET + 4 * index, 4)
      .readUInt32LE()
  }

  /** Gives a working volume a copy policy, which this sheep does not make any use of. */
  setPolicy(name: string, policy: number): void {
    const { vid } = this.#family(name).find((one) => one.snapCtime === 0n)!
    const header = { ...this.header(vid), policy }
    this.#object(inodeOid(vid)).write(0, encodeInodeHeader(header))
  }

  /** The opcodes asked for so far, for tests of what goes over the wire. */
  get opcodes(): number[] {
    return this.requests.map((request) => request.opcode)
  }

  #accept(port: number): Connection {
    const reader = new FrameReader(requestBodyLength)
    let events: ConnectionEvents | undefined
    let open = true
    const end = (): void => {
      if (!open) return
      open = false
      setImmediate(() => events?.close())
    }
    const take = (bytes: Uint8Array): void => {
      reader.give(Buffer.from(bytes))
      for (let request = reader.next(); request !== undefined; request = reader.next()) {
        const reply = this.#reply(request, port)
        if (reply === undefined) end()
        else setImmediate(() => events?.data(reply))
      }
    }
    return {
      remote: 'memory',
      on: (given) => {
        events = given
      },
      write: (bytes) => {
        if (open) take(bytes)
        return true
      },
      writeAll: (pieces) => {
        for (const piece of pieces) if (open) take(piece)
        return true
      },
      pause: () => undefined,
      resume: () => undefined,
      end,
      destroy: end,
    }
  }

  #reply(request: Frame, port: number): Buffer | undefined {
    const kept = new Frame(Buffer.from(request.head), Buffer.from(request.body))
    this.requests.push(kept)
    const replaced = this.answers.get(kept.opcode)
    const answer = replaced === undefined ? this.usual(kept, port) : replaced(kept, port)
    if (answer === undefined) return undefined
    const body = answer.body ?? Buffer.alloc(0)
    const { opcode, id } = kept
    const start = { opcode, id, epoch: 1, dataLength: body.length }
    const head = replyHead({ ...start, result: answer.result ?? Code.SUCCESS })
    answer.union?.(head)
    return Buffer.concat([head, body])
  }

  /** What the sheep says of its own accord. */
  usual(request: Frame, port: number): Answer | undefined {
    return this.#answers.get(request.opcode)?.(request, port)
  }

  /** As if another client had asked for it. */
  snapshot(name: string): void {
    const working = this.#family(name).find((one) => one.snapCtime === 0n)!
    const { sizeBytes, vid } = working
    const payload = cString(name, NAME_BYTES)
    this.#newVdi(
      new Frame(vdiRequest({ opcode: Op.NEW_VDI, sizeBytes, base: vid, snapId: 1 }), payload),
    )
  }

  get #isFormatted(): boolean {
    return this.formatted.ctime !== 0n
  }

  #object(oid: Oid): SparseBytes {
    const object = this.objects.get(oid)
    if (object === undefined) throw new Error(`no object ${oid.toString(16)}`)
    return object
  }

  /** As the real one: nothing but the forced operations before the format. */
  #once(answer: (request: Frame) => Answer): Answerer {
    return (request) => (this.#isFormatted ? answer(request) : refuse(Code.WAIT_FOR_FORMAT))
  }

  readonly #answers = new Map<number, Answerer>([
    [Op.GET_NODE_LIST, () => this.#nodeList()],
    [Op.STAT_CLUSTER, (request) => this.#history(request)],
    [Op.CLUSTER_INFO, () => this.#clusterInfo()],
    [Op.MAKE_FS, (request) => this.#format(request)],
    [Op.GET_STORE_LIST, () => ({ body: Buffer.from('tree plain \0') })],
    [Op.SHUTDOWN, () => ok],
    [Op.KILL_NODE, (_request, port) => this.#kill(port)],
    [Op.READ_VDIS, () => ({ body: bitmap(this.vids) })],
    [Op.READ_DEL_VDIS, () => ({ body: bitmap(this.deleted) })],
    [Op.GET_CLUSTER_DEFAULT, () => this.#clusterDefault()],
    [Op.STAT_SHEEP, (request, port) => this.#once(() => this.#space(port))(request, port)],
    [Op.FLUSH_VDI, this.#once(() => refuse(Code.INVALID_PARMS))],
    [Op.GET_VDI_INFO, this.#once((request) => this.#info(request))],
    [Op.NEW_VDI, this.#once((request) => this.#newVdi(request))],
    [Op.DEL_VDI, this.#once((request) => this.#deleteVdi(request))],
    [Op.READ_OBJ, this.#once((request) => this.#read(request))],
    [Op.WRITE_OBJ, this.#once((request) => this.#write(request))],
    [Op.CREATE_AND_WRITE_OBJ, this.#once((request) => this.#create(request))],
  ])

  #nodeList(): Answer {
    return {
      body: encodeNodes(this.nodes),
      union: (head) => void setNodeReply(head, { nodes: this.nodes.length }),
    }
  }

  #space(port: number): Answer {
    const node = this.nodes.find((one) => one.port === port)!
    const { spaceBytes: storeBytes, freeBytes = storeBytes } = node
    return { union: (head) => void setNodeReply(head, { storeBytes, freeBytes }) }
  }

  #kill(port: number): Answer {
    this.nodes = this.nodes.filter((one) => one.port !== port)
    this.newEpoch()
    return ok
  }

  /** The members of now become the newest epoch. */
  newEpoch(): void {
    const { ctime, copies, policy, clusterFlags: flags, store } = this.formatted
    const time = Math.floor(this.nowMs / 1000)
    const nodes = this.nodes.map(({ freeBytes: _, ...node }) => node)
    const epoch = this.log.length + 1
    const record = { ctime, time, epoch, recoveryDisabled: false, copies, policy, flags, store }
    this.log.unshift({ ...record, nodes })
  }

  #history(request: Frame): Answer {
    const { nodeSlots } = decodeClusterFields(request)
    if (this.log.some((record) => record.nodes.length > nodeSlots)) return refuse(Code.BUFFER_SMALL)
    const count = Math.floor(request.dataLength / (48 + 80 * nodeSlots))
    const records = this.log.slice(0, count)
    return {
      result: this.#isFormatted ? Code.SUCCESS : Code.WAIT_FOR_FORMAT,
      body: Buffer.concat(records.map((record) => encodeEpochLogRecord(record, nodeSlots))),
    }
  }

  #clusterInfo(): Answer {
    const { ctime, copies, policy, clusterFlags: flags, store, blockSizeShift } = this.formatted
    const start = { version: 10, recoveryDisabled: false, epoch: this.log.length, ctime, flags }
    const rest = { copies, policy, status: 'ok', blockSizeShift, store, nodes: [] } as const
    const info = encodeClusterInfo({ ...start, ...rest })
    return { body: Buffer.concat([info, Buffer.alloc(CLUSTER_INFO_BYTES - info.length)]) }
  }

  #format(request: Frame): Answer {
    const fields = decodeClusterFields(request)
    const store = readCString(request.body, 0, request.body.length)
    if (store !== 'plain' && store !== 'tree') return refuse(Code.NO_STORE)
    this.formatted = {
      ...fields,
      copies: fields.copies || 3,
      blockSizeShift: fields.blockSizeShift || 22,
      store,
    }
    this.log.length = 0
    for (const kept of [this.objects, this.vids, this.deleted]) kept.clear()
    this.newEpoch()
    return ok
  }

  #clusterDefault(): Answer {
    return { union: (head) => void setClusterDefault(head, this.formatted) }
  }

  #family(name: string): InodeHeader[] {
    const live = [...this.vids].filter((vid) => !this.deleted.has(vid))
    return live.map((vid) => this.header(vid)).filter((header) => header.name === name)
  }

  #find(request: Frame): InodeHeader | Answer {
    const name = readCString(request.body, 0, NAME_BYTES)
    const tag = request.body.length > NAME_BYTES ? readCString(request.body, 256, NAME_BYTES) : ''
    const { snapId } = decodeVdiFields(request)
    const family = this.#family(name)
    const working = tag === '' && snapId === 0
    const found = family.find((one) => {
      const snapshot = one.snapCtime !== 0n
      if (working) return !snapshot
      return snapshot && (snapId !== 0 ? one.snapId === snapId : one.tag === tag)
    })
    if (found !== undefined) return found
    return refuse(family.length > 0 && !working ? Code.NO_TAG : Code.NO_VDI)
  }

  #info(request: Frame): Answer {
    const found = this.#find(request)
    return 'vid' in found ? { union: (head) => void setVdiReply(head, found) } : found
  }

  #newVdi(request: Frame): Answer {
    const fields = decodeVdiFields(request)
    const name = readCString(request.body, 0, NAME_BYTES)
    const family = this.#family(name)
    const working = family.find((one) => one.snapCtime === 0n)
    if (fields.snapId === 0 && working !== undefined) return refuse(Code.VDI_EXIST)
    let vid = vidHash(name)
    while (this.vids.has(vid)) vid = asVid(vid + 1)
    const base = fields.base === 0 ? undefined : this.#object(inodeOid(asVid(fields.base)))
    const inode = base?.copy() ?? new SparseBytes()
    const now = sdTime(this.nowMs)
    if (fields.snapId !== 0 && working !== undefined) {
      this.#object(inodeOid(working.vid)).write(
        0,
        encodeInodeHeader({ ...working, snapCtime: now }),
      )
    }
    const snapIds = family.map((one) => one.snapId)
    inode.write(
      0,
      encodeInodeHeader(this.#newHeader(fields, name, vid, Math.max(0, ...snapIds) + 1)),
    )
    if (fields.storePolicy === 1) inode.write(SLOTS_OFFSET, Buffer.from('7462010000000000', 'hex'))
    this.objects.set(inodeOid(vid), inode)
    this.vids.add(vid)
    return { union: (head) => void setVdiReply(head, { vid }) }
  }

  #newHeader(
    fields: ReturnType<typeof decodeVdiFields>,
    name: string,
    vid: Vid,
    snapId: number,
  ): InodeHeader {
    const none = { tag: '', snapCtime: sdTime(0), vmClockNsec: 0n, vmStateBytes: 0n }
    return {
      ...none,
      name,
      createTime: sdTime(this.nowMs),
      sizeBytes: fields.sizeBytes,
      policy: fields.copies === 0 ? this.formatted.policy : fields.policy,
      copies: fields.copies || this.formatted.copies,
      storePolicy: fields.storePolicy,
      blockSizeShift: fields.blockSizeShift || this.formatted.blockSizeShift,
      snapId,
      vid,
      parent: asVid(fields.base),
      btreeCounter: 0,
    }
  }

  #deleteVdi(request: Frame): Answer {
    const found = this.#find(request)
    if (!('vid' in found)) return found
    this.deleted.add(found.vid)
    return { union: (head) => void setVdiReply(head, { vid: found.vid }) }
  }

  #read(request: Frame): Answer {
    const object = this.objects.get(objectFields.oid(request))
    if (object === undefined) return refuse(Code.NO_OBJ)
    return { body: object.read(objectFields.offset(request), request.dataLength) }
  }

  #isSnapshotData(oid: Oid): boolean {
    return oidKind(oid) === 'data' && this.header(oidVid(oid)).snapCtime !== 0n
  }

  #write(request: Frame): Answer {
    const oid = objectFields.oid(request)
    if (this.#isSnapshotData(oid)) return refuse(Code.READONLY)
    const object = this.objects.get(oid)
    if (object === undefined) return refuse(Code.NO_OBJ)
    object.write(objectFields.offset(request), request.body)
    return ok
  }

  #create(request: Frame): Answer {
    const oid = objectFields.oid(request)
    if (this.#isSnapshotData(oid)) return refuse(Code.READONLY)
    const source = request.has(Flag.COW)
      ? this.objects.get(objectFields.cowOid(request))
      : undefined
    if (request.has(Flag.COW) && source === undefined) return refuse(Code.NO_OBJ)
    const object = source?.copy() ?? new SparseBytes()
    object.write(objectFields.offset(request), request.body)
    this.objects.set(oid, object)
    return ok
  }
}

function bitmap(vids: Iterable<Vid>): Buffer {
  const bytes = Buffer.alloc(VID_BITMAP_BYTES)
  for (const vid of vids) bytes[vid >> 3]! |= 1 << (vid & 7)
  return bytes
}
