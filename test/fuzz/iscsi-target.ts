/**
 * Whole connections to the iSCSI door over volumes of memory: logins and sessions whose PDUs are bent out of shape, in any
 * chunks, with volumes that answer late. What must hold, whatever the bytes:
 *
 *   what the server sends is PDUs, each with a tag its initiator has used or none
 *   when the connection is gone everything ends, and each volume that was opened is handed back
 */
import { Answer, Op } from '../../src/wire/iscsi/constants.js'
import * as pdu from '../../src/wire/iscsi/pdu.js'
import type { Dice } from '../faults/dice.js'
import {
  type Initiator,
  iscsiRig,
  NO_TAG,
  type Rig,
  read10,
  settle,
  write10,
} from '../unit/support/iscsi-rig.js'
import { chunksOf } from './mutate.js'

const PDUS_PER_SESSION = 30
const CONNECTIONS_PER_SERVER = 20
const OPCODES = [0x00, 0x12, 0x15, 0x1a, 0x28, 0x2a, 0x35, 0x41, 0x42, 0x5e, 0x5f, 0x88, 0x89, 0x8a]
const CURIOUS = [0, 1, 2, 4, 47, 48, 255, 256, 0x7fff, 0xffff, 0xffffff, 0x7fffffff, 0xffffffff]

/** Runs connections until `frames` PDUs have been sent; throws an Error that names what went wrong. */
export async function fuzzIscsi(dice: Dice, frames: number): Promise<{ connections: number }> {
  let connections = 0
  for (let sent = 0; sent < frames; connections += CONNECTIONS_PER_SERVER) {
    const rig = await iscsiRig({ sizeBytes: 8 * 1024 * 1024 })
    const late: (() => void)[] = []
    rig.volume.tap = (_verb, go) => {
      if (dice.below(3) === 0) late.push(go)
      else go()
    }
    for (let i = 0; i < CONNECTIONS_PER_SERVER; i++) sent += await oneConnection(rig, dice, late)
    const { opens } = rig.source
    if (rig.volume.closes !== opens) {
      throw new Error(`${opens} volumes opened, ${rig.volume.closes} handed back`)
    }
    if (rig.server.sessions().length > 0) throw new Error('a session is left')
  }
  return { connections }
}

async function oneConnection(rig: Rig, dice: Dice, late: (() => void)[]): Promise<number> {
  const one = rig.connect()
  const isRude = dice.below(8) === 0
  if (!isRude) {
    const digests = dice.below(4) === 0 ? { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' } : {}
    await one.login(digests, `4000000000${10 + dice.below(3)}`).catch(() => undefined)
  }
  const parts = Array.from({ length: PDUS_PER_SESSION }, () => bent(onePdu(one, dice), dice))
  const stream = Buffer.concat(parts)
  const used = new Set<number>([NO_TAG])
  // Tags are where they were put, and wherever a bent stream has headers by chance: all words of it.
  for (let at = 0; at + 4 <= stream.length; at++) used.add(stream.readUInt32BE(at))
  for (const chunk of chunksOf(stream, dice)) {
    if (one.isClosed) break
    one.wire.receive(chunk)
    if (dice.below(4) === 0) while (late.length > 0) late.splice(dice.below(late.length), 1)[0]!()
    if (dice.below(8) === 0) await settle()
  }
  await settle()
  while (late.length > 0) {
    late.shift()!()
    await settle()
  }
  judge(one, used)
  one.wire.destroy()
  await settle()
  while (late.length > 0) {
    late.shift()!()
    await settle()
  }
  return parts.length
}

function judge(one: Initiator, used: ReadonlySet<number>): void {
  for (const { opcode, header } of one.answers()) {
    const tag = pdu.tagOf(header)
    if (!(Object.values(Answer) as number[]).includes(opcode)) throw new Error(`opcode ${opcode}`)
    if (!used.has(tag)) throw new Error(`an answer for ${tag}, which nobody asked`)
  }
}

function onePdu(one: Initiator, dice: Dice): Buffer {
  switch (dice.below(6)) {
    case 0:
      return one.commandPdu({
        cdb: read10(dice.below(20000), dice.below(64)),
        read: 512 * dice.below(64),
      })
    case 1: {
      const count = 1 + dice.below(16)
      const immediate = Buffer.alloc(512 * dice.below(count + 1), dice.below(256))
      const write = 512 * count
      const isOpen = dice.below(3) === 0
      return one.commandPdu({ cdb: write10(dice.below(16000), count), write, immediate, isOpen })
    }
    case 2: {
      const part = { at: 512 * dice.below(8), data: Buffer.alloc(512), more: dice.below(2) === 0 }
      const ttt = dice.below(2) === 0 ? NO_TAG : 1 + dice.below(4)
      return one.dataOut(Math.max(1, one.tag - 1 - dice.below(3)), {
        ...part,
        ttt,
        serial: dice.below(3),
      })
    }
    case 3: {
      const cdb = [dice.pick(OPCODES), ...Array.from({ length: 15 }, () => dice.below(256))]
      const bytes = dice.below(200)
      const isWrite = dice.below(2) === 0
      return one.commandPdu(
        isWrite
          ? { cdb, write: bytes, immediate: Buffer.alloc(bytes, dice.below(256)) }
          : { cdb, read: bytes },
      )
    }
    case 4: {
      const what = dice.pick([Op.NOP_OUT, Op.TEXT, Op.TASK_MANAGEMENT, Op.LOGIN])
      const data = what === Op.TEXT ? Buffer.from('SendTargets=All\0') : Buffer.alloc(0)
      return one.pdu(0x40 | what, 0x80 | (1 + dice.below(5)), data, (header) => {
        header.writeUInt32BE(one.tag++, 16)
        header.writeUInt32BE(dice.below(2) === 0 ? NO_TAG : one.tag - 2, 20)
        header.writeUInt32BE(one.cmdSn, 24)
      })
    }
    default:
      return one.commandPdu({
        cdb: [0, 0, 0, 0, 0, 0],
        attribute: dice.below(8),
        lun: dice.below(2),
      })
  }
}

function bent(bytes: Buffer, dice: Dice): Buffer {
  if (dice.below(10) < 8) return bytes
  switch (dice.below(4)) {
    case 0:
      bytes[dice.below(bytes.length)]! ^= 1 << dice.below(8)
      return bytes
    case 1: {
      const at = 4 * dice.below(12)
      bytes.writeUInt32BE(dice.pick(CURIOUS), at)
      return bytes
    }
    case 2:
      return bytes.subarray(0, Math.max(1, dice.below(bytes.length)))
    default:
      bytes.writeUIntBE(dice.below(0x2000), 5, 3)
      return bytes
  }
}
