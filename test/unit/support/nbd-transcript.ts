/** Reads what an NBD server sent, byte by byte checked, into lines for people. */

const OPTION_REPLY = 0x0003e889045565a9n

class Reader {
  #at = 0
  constructor(readonly bytes: Buffer) {}
  get left(): number {
    return this.bytes.length - this.#at
  }
  take(length: number): Buffer {
    if (length > this.left) throw new Error(`stream ends ${length - this.left} bytes early`)
    this.#at += length
    return this.bytes.subarray(this.#at - length, this.#at)
  }
  u16 = (): number => this.take(2).readUInt16BE(0)
  u32 = (): number => this.take(4).readUInt32BE(0)
  u64 = (): bigint => this.take(8).readBigUInt64BE(0)
}

const REPS: Readonly<Record<number, string>> = {
  1: 'ACK',
  2: 'SERVER',
  3: 'INFO',
  4: 'META_CONTEXT',
  2147483649: 'ERR_UNSUP',
  2147483650: 'ERR_POLICY',
  2147483651: 'ERR_INVALID',
  2147483653: 'ERR_TLS_REQD',
  2147483654: 'ERR_UNKNOWN',
  2147483655: 'ERR_SHUTDOWN',
  2147483657: 'ERR_TOO_BIG',
}

/** Greeting and option replies, up to the end of `bytes`. */
export function optionTranscript(bytes: Buffer): string[] {
  const reader = new Reader(bytes)
  const lines = [`greeting ${reader.take(16).toString('latin1')} flags=${reader.u16()}`]
  while (reader.left > 0) {
    if (reader.u64() !== OPTION_REPLY) throw new Error('no option reply magic')
    const option = reader.u32()
    const type = reader.u32()
    const data = reader.take(reader.u32())
    lines.push(`${option} ${REPS[type] ?? type.toString(16)}${optionData(type, data)}`)
  }
  return lines
}

function optionData(type: number, data: Buffer): string {
  const reader = new Reader(data)
  if (type === 2) {
    const name = reader.take(reader.u32()).toString()
    return ` ${name}: ${reader.take(reader.left).toString()}`
  }
  if (type === 4) return ` id=${reader.u32()} ${reader.take(reader.left).toString()}`
  if (type === 3) {
    const kind = reader.u16()
    if (kind === 0) return ` export size=${reader.u64()} flags=0x${reader.u16().toString(16)}`
    if (kind === 3) return ` blocks ${reader.u32()} ${reader.u32()} ${reader.u32()}`
    return ` text${kind} ${reader.take(reader.left).toString()}`
  }
  return data.length === 0 ? '' : ` "${data.toString()}"`
}

/** Replies of the transmission phase. `reads`: lengths of successful simple READs by cookie. */
export function replyTranscript(bytes: Buffer, reads: Record<number, number> = {}): string[] {
  const reader = new Reader(bytes)
  const lines: string[] = []
  while (reader.left > 0) {
    const magic = reader.u32()
    if (magic === 0x67446698) lines.push(simpleLine(reader, reads))
    else if (magic === 0x668e33ef) lines.push(chunkLine(reader, false))
    else if (magic === 0x6e8a278c) lines.push(chunkLine(reader, true))
    else throw new Error(`no reply magic: ${magic.toString(16)}`)
  }
  return lines
}

function simpleLine(reader: Reader, reads: Record<number, number>): string {
  const error = reader.u32()
  const cookie = Number(reader.u64())
  const length = reads[cookie]
  if (error !== 0 || length === undefined) return `${cookie} simple error=${error}`
  return `${cookie} simple ${summary(reader.take(length))}`
}

/** An extended chunk also names the offset of its request: shown in brackets. */
function chunkLine(reader: Reader, isExtended: boolean): string {
  const done = reader.u16() === 1 ? ' done' : ''
  const type = reader.u16()
  const number = Number(reader.u64())
  const cookie = isExtended ? `${number} [${reader.u64()}]` : `${number}`
  const body = new Reader(reader.take(isExtended ? Number(reader.u64()) : reader.u32()))
  if (type === 0 && body.left === 0) return `${cookie} none${done}`
  if (type === 1) return `${cookie} data @${body.u64()} ${summary(body.take(body.left))}${done}`
  if (type === 2) return `${cookie} hole @${body.u64()} +${body.u32()}${done}`
  if (type === 0x8001 || type === 0x8002) {
    const error = body.u32()
    const text = body.take(body.u16()).toString()
    const place = type === 0x8002 ? ` @${body.u64()}` : ''
    if (body.left > 0) throw new Error('an error chunk is longer than what it says')
    return `${cookie} error=${error} "${text}"${place}${done}`
  }
  if (type !== (isExtended ? 6 : 5)) throw new Error(`unknown chunk type ${type}`)
  const parts = [`${cookie} status id=${body.u32()}`]
  if (isExtended && body.u32() * 16 !== body.left) throw new Error('wrong count of stretches')
  const number64 = isExtended ? body.u64 : body.u32
  while (body.left > 0) parts.push(`${number64()}:${number64()}`)
  return parts.join(' ') + done
}

/** Bytes as runs: `4096x07 12x00`. */
function summary(bytes: Buffer): string {
  const runs: string[] = []
  for (let from = 0; from < bytes.length; ) {
    let to = from
    while (to < bytes.length && bytes[to] === bytes[from]) to++
    runs.push(`${to - from}x${bytes[from]!.toString(16).padStart(2, '0')}`)
    from = to
  }
  return runs.join(' ')
}
