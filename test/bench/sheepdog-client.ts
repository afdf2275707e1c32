/**
 * A client of the sheepdog protocol that does nothing but keep so many requests under way on one connection and count:
 * headers made in advance, replies looked at for length and result only.
 */
import { createConnection, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import { dataOid, type Oid, type Vid } from '../../src/model/oid.js'
import { HEADER_BYTES } from '../../src/wire/sheepdog/frame.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'

export interface DoorJob {
  readonly kind: 'read' | 'write' | 'create'
  readonly blockBytes: number
  readonly depth: number
  /** Write-back: acknowledged when every node has it. Else when it is on every disk. */
  readonly cached: boolean
}

export interface DoorPlan {
  readonly host: string
  readonly port: number
  readonly vid: Vid
  readonly objectBytes: number
  readonly objects: number
  /** Ends after that, or after `requests`. */
  readonly seconds?: number
  readonly requests?: number
}

export interface DoorSample {
  readonly operations: number
  readonly seconds: number
  readonly p99Microseconds: number
}

const OPCODES = { read: Op.READ_OBJ, write: Op.WRITE_OBJ, create: Op.CREATE_AND_WRITE_OBJ }
/** Latencies kept: more do not change the percentile. */
const LATENCIES_MAX = 1 << 18

export async function runDoorJob(job: DoorJob, plan: DoorPlan): Promise<DoorSample> {
  const socket = createConnection({ host: plan.host, port: plan.port, noDelay: true })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  try {
    return await new Promise<DoorSample>((resolve, reject) => {
      new Run(socket, job, plan, resolve, reject).start()
    })
  } finally {
    socket.destroy()
  }
}

class Run {
  readonly #socket: Socket
  readonly #job: DoorJob
  readonly #plan: DoorPlan
  readonly #done: (sample: DoorSample) => void
  readonly #fail: (error: Error) => void
  readonly #head: Buffer
  readonly #payload: Buffer
  readonly #blocks: number
  readonly #sentAt: Float64Array
  readonly #latencies: number[] = []
  #begun = 0
  #sent = 0
  #ended = 0
  #seed = 0x2545f491
  /** Of the reply being read: header so far, and body bytes to come. */
  #replyHead = Buffer.alloc(HEADER_BYTES)
  #replyFill = 0
  #bodyLeft = 0
  #replyId = 0

  constructor(
    socket: Socket,
    job: DoorJob,
    plan: DoorPlan,
    done: (sample: DoorSample) => void,
    fail: (error: Error) => void,
  ) {
    this.#socket = socket
    this.#job = job
    this.#plan = plan
    this.#done = done
    this.#fail = fail
    const isRead = job.kind === 'read'
    const flags = (isRead ? 0 : Flag.WRITE) | (job.cached ? Flag.CACHE : Flag.DIRECT)
    const opcode = OPCODES[job.kind]
    this.#head = objectRequest({ opcode, flags, oid: 0n as Oid, dataLength: job.blockBytes })
    this.#payload = isRead ? Buffer.alloc(0) : Buffer.alloc(job.blockBytes, 0x5a)
    this.#blocks = Math.floor((plan.objects * plan.objectBytes) / job.blockBytes)
    this.#sentAt = new Float64Array(job.depth)
  }

  start(): void {
    this.#socket.on('data', (chunk) => this.#received(chunk))
    this.#socket.on('error', this.#fail)
    this.#socket.on('close', () => this.#fail(new Error('the sheep closed the connection')))
    this.#begun = performance.now()
    this.#socket.cork()
    for (let slot = 0; slot < this.#job.depth; slot++) this.#send(slot)
    this.#socket.uncork()
  }

  #send(slot: number): void {
    const { vid, objectBytes, requests, objects } = this.#plan
    if (requests !== undefined && this.#sent >= requests) return
    const { blockBytes, kind } = this.#job
    const head = Buffer.from(this.#head)
    const block = kind === 'create' ? this.#sent % objects : this.#random(this.#blocks)
    const perObject = kind === 'create' ? 1 : objectBytes / blockBytes
    const index = Math.floor(block / perObject)
    head.writeUInt32LE(slot, 8)
    head.writeBigUInt64LE(dataOid(vid, index), 16)
    head.writeUInt32LE((block - index * perObject) * blockBytes, 40)
    this.#sent++
    this.#sentAt[slot] = performance.now()
    this.#socket.write(head)
    if (this.#payload.length > 0) this.#socket.write(this.#payload)
  }

  #random(below: number): number {
    this.#seed ^= this.#seed << 13
    this.#seed ^= this.#seed >>> 17
    this.#seed ^= this.#seed << 5
    return (this.#seed >>> 0) % below
  }

  #received(chunk: Buffer): void {
    this.#socket.cork()
    for (let at = 0; at < chunk.length; ) {
      if (this.#bodyLeft > 0) {
        const count = Math.min(this.#bodyLeft, chunk.length - at)
        this.#bodyLeft -= count
        at += count
      } else {
        const copied = chunk.copy(this.#replyHead, this.#replyFill, at)
        at += copied
        this.#replyFill += copied
        if (this.#replyFill < HEADER_BYTES) break
        this.#replyFill = 0
        this.#replyId = this.#replyHead.readUInt32LE(8)
        this.#bodyLeft = this.#replyHead.readUInt32LE(12)
        const result = this.#replyHead.readUInt32LE(16)
        if (result !== 0) this.#fail(new Error(`${this.#job.kind}: result ${result}`))
      }
      if (this.#bodyLeft === 0) this.#answered(this.#replyId)
    }
    this.#socket.uncork()
  }

  #answered(slot: number): void {
    const now = performance.now()
    if (this.#latencies.length < LATENCIES_MAX) this.#latencies.push(now - this.#sentAt[slot]!)
    this.#ended++
    const { seconds, requests } = this.#plan
    const elapsed = (now - this.#begun) / 1000
    const isOver = requests === undefined ? elapsed >= (seconds ?? 1) : this.#ended === requests
    if (!isOver) {
      this.#send(slot)
      return
    }
    const sorted = this.#latencies.sort((a, b) => a - b)
    const p99 = sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN
    this.#done({ operations: this.#ended, seconds: elapsed, p99Microseconds: p99 * 1000 })
  }
}
