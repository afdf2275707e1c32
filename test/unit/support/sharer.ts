/** A client that shares a volume as tgt does (protocol spec, sections 13 and 14.2). */
import { Code, SheepError, toCode } from '../../../src/base/codes.js'
import { REFS_OFFSET, slotRange } from '../../../src/model/inode.js'
import { dataOid, inodeOid, type Oid, type Vid } from '../../../src/model/oid.js'
import type { SheepClient } from '../../../src/peer/client.js'
import { Flag, LockType, Op } from '../../../src/wire/sheepdog/opcodes.js'
import { objectRequest, vdiRequest } from '../../../src/wire/sheepdog/requests.js'
import { object, vdi } from './sheep-wire.js'
import type { SmallCluster } from './small-cluster.js'

/** Objects of the volumes it can have. */
export const SLOTS_READ = 16

/** A client as tgt is one: it remembers the inode, says so with every request, and reads it again when told. */
export class Sharer {
  client: SheepClient
  readonly vid: Vid
  slots: number[] = []
  refreshes = 0
  #turn: Promise<void> = Promise.resolve()

  constructor(client: SheepClient, vid: Vid) {
    this.client = client
    this.vid = vid
  }

  static async attach(cluster: SmallCluster, index: number, vid: Vid): Promise<Sharer> {
    const sharer = new Sharer(await cluster.client(index), vid)
    const code = await sharer.lock()
    if (code !== Code.SUCCESS) throw new Error(`lock: ${code}`)
    await sharer.refresh()
    return sharer
  }

  async lock(): Promise<number> {
    const fields = { lockType: LockType.SHARED }
    return (await vdi(this.client, Op.LOCK_VDI, 'Alice', fields)).result
  }

  async release(): Promise<number> {
    const head = vdiRequest({ opcode: Op.RELEASE_VDI, base: this.vid, lockType: LockType.SHARED })
    return (await this.client.call(head)).result
  }

  async refresh(): Promise<number> {
    this.refreshes++
    const { result, body } = await this.read(inodeOid(this.vid), 0, REFS_OFFSET)
    const first = slotRange(0, 0).offset
    if (result === Code.SUCCESS) {
      this.slots = Array.from({ length: SLOTS_READ }, (_, i) => body.readUInt32LE(first + 4 * i))
    }
    return result
  }

  read(oid: Oid, offset: number, length: number) {
    const what = { opcode: Op.READ_OBJ, flags: Flag.TGT, oid, offset, dataLength: length }
    return this.client.call(objectRequest(what))
  }

  /** One attempt at what it remembers. */
  async writeOnce(index: number, offset: number, data: Buffer): Promise<number> {
    const oid = dataOid(this.vid, index)
    if (this.slots[index] === this.vid) {
      return (await object(this.client, Op.WRITE_OBJ, { oid, offset }, data, Flag.TGT)).result
    }
    const flags = Flag.TGT | Flag.CACHE
    const made = await object(this.client, Op.CREATE_AND_WRITE_OBJ, { oid, offset }, data, flags)
    if (made.result !== Code.SUCCESS) return made.result
    const result = await this.name(index)
    if (result === Code.SUCCESS) this.slots[index] = this.vid
    return result
  }

  async name(index: number): Promise<number> {
    const slot = Buffer.alloc(4)
    slot.writeUInt32LE(this.vid)
    const at = { oid: inodeOid(this.vid), offset: slotRange(index, 1).offset }
    return (await object(this.client, Op.WRITE_OBJ, at, slot, Flag.TGT)).result
  }

  /** Until it is done; what it remembers is put right in between. */
  async write(index: number, offset: number, data: Buffer): Promise<void> {
    await this.#persist(() => this.writeOnce(index, offset, data))
  }

  async readBack(index: number, offset: number, length: number): Promise<Buffer> {
    let body = Buffer.alloc(length)
    await this.#persist(async () => {
      if (this.slots[index] === 0) {
        // Nothing is asked of the sheep for a hole; its inode may have changed all the same.
        const { result } = await this.read(inodeOid(this.vid), 0, 8)
        return result
      }
      const reply = await this.read(dataOid(this.slots[index] as Vid, index), offset, length)
      body = reply.body as typeof body
      return reply.result
    })
    return body
  }

  /** One operation after the other, as under tgt's lock: none goes by an inode that another one is reading again. */
  #persist(attempt: () => Promise<number>): Promise<void> {
    const done = this.#turn.then(() => this.#untilDone(attempt))
    this.#turn = done.catch(() => undefined)
    return done
  }

  async #untilDone(attempt: () => Promise<number>): Promise<void> {
    for (let count = 0; count < 200; count++) {
      const code = await attempt()
      if (code === Code.SUCCESS) return
      if (code !== Code.INODE_INVALIDATED) throw new SheepError(toCode(code))
      await this.refresh()
    }
    throw new SheepError(Code.INODE_INVALIDATED, 'again and again')
  }
}
