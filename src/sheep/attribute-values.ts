/** Attributes of volumes for this node's own doors: whole values by name, without a network in between. */
import { Code, SheepError } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import { ATTRIBUTE_BYTES, attributeOid } from '../model/oid.js'
import { AttributeFlag, decodeAttribute, encodeAttribute } from '../wire/sheepdog/attribute.js'
import { Frame } from '../wire/sheepdog/frame.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { decodeVdiReply, replyHead } from '../wire/sheepdog/replies.js'
import { vdiRequest } from '../wire/sheepdog/requests.js'
import type { SheepNode } from './node.js'

export interface AttributeValues {
  /** Of the working VDI; undefined: it has none of this key. Rejects with a SheepError. */
  load(vdiName: string, key: string): Promise<Buffer | undefined>
  /** On every copy when it resolves; undefined takes the attribute away. */
  save(vdiName: string, key: string, value: Buffer | undefined): Promise<void>
}

export function attributeValues(node: SheepNode, objects: ObjectAccess): AttributeValues {
  const ask = (record: Buffer, flags: number): Promise<Frame> => {
    const opcode = Op.GET_VDI_ATTR
    const head = vdiRequest({ opcode, flags: Flag.WRITE | flags, dataLength: record.length })
    return new Promise((resolve, reject) => {
      node.ops.submit(new Frame(head, record), (answer) => {
        const { result } = answer
        if (result !== Code.SUCCESS) {
          reject(new SheepError(result))
          return
        }
        const reply = replyHead({ opcode, id: 0, epoch: 0, result })
        answer.fill?.(reply)
        resolve(new Frame(reply))
      })
    })
  }
  const record = (name: string, key: string, value: Buffer): Buffer =>
    encodeAttribute({ name, tag: '', snapId: 0, key, value })

  return {
    load: async (name, key) => {
      const found = await orMissing(ask(record(name, key, Buffer.alloc(0)), 0))
      if (found === undefined) return undefined
      const { vid, attributeId } = decodeVdiReply(found)
      const bytes = Buffer.alloc(ATTRIBUTE_BYTES)
      const ref = objects.ref(attributeOid(vid, attributeId))
      const code = await new Promise<Code>((resolve) => objects.read(ref, 0, bytes, resolve))
      if (code !== Code.SUCCESS) throw new SheepError(code)
      return decodeAttribute(bytes).value
    },
    save: async (name, key, value) => {
      if (value !== undefined) await ask(record(name, key, value), AttributeFlag.CREATE)
      else await orMissing(ask(record(name, key, Buffer.alloc(0)), AttributeFlag.DELETE))
    },
  }
}

/** Undefined when there is no such attribute. */
async function orMissing(answer: Promise<Frame>): Promise<Frame | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof SheepError && error.code === Code.NO_OBJ) return undefined
    throw error
  }
}
