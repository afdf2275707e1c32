/**
 * Copy on write: an object of what the client gives and, around it, the bytes of another one.
 *
 * What fits one piece is made at once. A larger object is created with what the client gave, then everything around
 * that comes from the source part by part, each durable before the next. Until the end no slot names the object; a
 * copy that was cut off is made anew by whoever creates it again.
 */
import { zeros } from '../base/bytes.js'
import { Code, type Done } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'

export interface CopyAround {
  /** Size of either object. */
  readonly bytes: number
  /** What the client gives, and where. */
  readonly offset: number
  readonly data: Uint8Array
  /** Of the source. */
  readonly read: (offset: number, into: Uint8Array, done: Done) => void
  readonly create: (offset: number, data: Uint8Array, done: Done) => void
  /** Durable. */
  readonly write: (offset: number, data: Uint8Array, done: Done) => void
  /** Lets the event loop serve others. */
  readonly soon: (fn: () => void) => void
}

export function copyAround(copy: CopyAround, done: Done): void {
  const { bytes, offset, data } = copy
  if (data.length === bytes) copy.create(0, data, done)
  else if (bytes > LIMITS.pieceBytesMax) copyParts(copy, done)
  else {
    const whole = Buffer.allocUnsafe(bytes)
    copy.read(0, whole, (code) => {
      if (code !== Code.SUCCESS) {
        done(code)
        return
      }
      whole.set(data, offset)
      copy.create(0, whole, done)
    })
  }
}

function copyParts(copy: CopyAround, done: Done): void {
  const step = (at: number): void => {
    if (at >= copy.bytes) {
      done(Code.SUCCESS)
      return
    }
    const piece = Buffer.allocUnsafe(Math.min(LIMITS.pieceBytesMax, copy.bytes - at))
    const onward =
      (then: () => void): Done =>
      (code) => {
        if (code === Code.SUCCESS) then()
        else done(code)
      }
    const next = onward(() => copy.soon(() => step(at + piece.length)))
    const fill = onward(() => writeOutside(copy, at, piece, next))
    // The source is asked first: where there is none, nothing is made.
    const got = at > 0 ? fill : onward(() => copy.create(copy.offset, copy.data, fill))
    copy.read(at, piece, got)
  }
  step(0)
}

/** The piece without what the client gave; zeros are there already. */
function writeOutside(copy: CopyAround, at: number, piece: Buffer, done: Done): void {
  const inside = (position: number): number => Math.min(Math.max(position - at, 0), piece.length)
  const [from, to] = [inside(copy.offset), inside(copy.offset + copy.data.length)]
  const parts = [
    { offset: at, data: piece.subarray(0, from) },
    { offset: at + to, data: piece.subarray(to) },
  ].filter(({ data }) => Buffer.compare(data, zeros(data.length)) !== 0)
  const next: Done = (code) => {
    const part = code === Code.SUCCESS ? parts.shift() : undefined
    if (part === undefined) done(code)
    else copy.write(part.offset, part.data, next)
  }
  next(Code.SUCCESS)
}
