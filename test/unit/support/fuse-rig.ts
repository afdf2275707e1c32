/** A FUSE session without a kernel: requests go in as the bytes a kernel sends, and answers are taken apart. */
import { type Log, silentLog } from '../../../src/base/log.js'
import type { Directory, FileNode, OpenFile } from '../../../src/sheepfs/node.js'
import { FuseSession } from '../../../src/sheepfs/session.js'
import { facts } from '../../../src/sheepfs/text-file.js'
import { FuseOp } from '../../../src/wire/fuse/constants.js'

/** INIT of Linux 6.18 as read from /dev/fuse: 7.45, read-ahead 131072. */
export const INIT = Buffer.from(
  '680000001a0000000200000000000000000000000000000000000000000000000000000000000000' +
    '070000002d00000000000200fbffff73fd05' +
    '00'.repeat(46),
  'hex',
)

export interface Answer {
  readonly unique: bigint
  readonly errno: number
  readonly body: Buffer
}

export class Rig {
  readonly answers: Answer[] = []
  readonly session: FuseSession
  readonly timers: (() => void)[] = []
  released = 0
  #unique = 100n

  constructor(root: Directory, readOnly = false, log: Log = silentLog) {
    this.session = new FuseSession({
      ...{ root, readOnly, log, uid: 1000, gid: 100, validMs: 1000, writeBytesMax: 1 << 20 },
      clock: {
        after: (_ms, run) => {
          this.timers.push(run)
          return () => undefined
        },
      },
      statFs: async () => ({ totalBytes: 1 << 30, freeBytes: 1 << 29, blockBytes: 4096, files: 3 }),
      reply: (head, body) => {
        const bytes = Buffer.from(head)
        const rest = Buffer.from(body ?? [])
        if (bytes.readUInt32LE(0) !== bytes.length + rest.length) throw new Error('a wrong length')
        const [errno, unique] = [Math.abs(bytes.readInt32LE(4)), bytes.readBigUInt64LE(8)]
        this.answers.push({ unique, errno, body: rest })
      },
    })
  }

  send(bytes: Buffer): void {
    this.session.request(bytes, () => {
      this.released++
    })
  }

  /** Sends it without waiting for an answer; its number. */
  async begin(
    opcode: number,
    node: number,
    ...parts: readonly (Buffer | string)[]
  ): Promise<bigint> {
    const unique = this.#unique++
    const body = Buffer.concat(parts.map((part) => Buffer.from(part as string)))
    this.send(request(opcode, node, unique, body))
    await turns()
    return unique
  }

  /** A signal for the process that waits, and the moment after it. */
  async interrupt(unique: bigint): Promise<void> {
    const body = Buffer.alloc(8)
    body.writeBigUInt64LE(unique)
    this.send(request(FuseOp.INTERRUPT, 0, 1_000_000n + unique, body))
    for (const run of this.timers.splice(0)) run()
    await turns()
  }

  errnosOf(unique: bigint): number[] {
    return this.answers.filter((one) => one.unique === unique).map(({ errno }) => errno)
  }

  /** The answer to a request of these bytes behind the header. */
  async ask(opcode: number, node: number, ...parts: readonly (Buffer | string)[]): Promise<Answer> {
    const body = Buffer.concat(parts.map((part) => Buffer.from(part as string)))
    const unique = this.#unique++
    this.send(request(opcode, node, unique, body))
    await turns()
    const found = this.answers.filter((one) => one.unique === unique)
    if (found.length !== 1) throw new Error(`${found.length} answers to opcode ${opcode}`)
    return found[0]!
  }

  async start(): Promise<void> {
    this.send(INIT)
    await turns()
  }
}

export async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve()
}

export function request(opcode: number, node: number, unique: bigint, body: Buffer): Buffer {
  const head = Buffer.alloc(40)
  head.writeUInt32LE(40 + body.length, 0)
  head.writeUInt32LE(opcode, 4)
  head.writeBigUInt64LE(unique, 8)
  head.writeBigUInt64LE(BigInt(node), 16)
  return Buffer.concat([head, body])
}

export function numbers(...values: readonly (readonly [4 | 8, number])[]): Buffer {
  return Buffer.concat(
    values.map(([width, value]) => {
      const bytes = Buffer.alloc(width)
      bytes.writeUInt32LE(value >>> 0, 0)
      return bytes
    }),
  )
}

/** A file of these bytes; what is written goes into them. */
export function memoryFile(bytes: Buffer, more: Partial<OpenFile> = {}): FileNode {
  return {
    kind: 'file',
    facts: async () =>
      facts({ sizeBytes: bytes.length, mode: 0o644, modifiedMs: 1_700_000_000_500 }),
    open: async () => ({
      isDirect: true,
      read: (offset, size, done) => done(0, bytes.subarray(offset, offset + size)),
      write: (offset, data, done) => {
        bytes.set(data, offset)
        done(0, data.length)
      },
      close: () => Promise.resolve(),
      ...more,
    }),
  }
}
