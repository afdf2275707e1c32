/**
 * A disk as a row of registers. Each register is a few bytes between two borders (borders lie at odd
 * places and at every object's end, because a request may be torn there and nowhere else). A write
 * fills registers with its id; a read of a register must find a write that could be the latest:
 *
 *   W is allowed  <=>  no W' with  W ended before W' began  and  W' ended before the read began
 *
 * After a power cut the same holds with "W' is known to be durable" in place of the second part. A
 * write that failed never ended: it may show up or not.
 */

interface Write {
  readonly id: number
  readonly began: number
  ended: number
  /** Known to be durable. */
  durable: boolean
}

export interface Span {
  readonly from: number
  readonly until: number
}

const NEVER = Number.POSITIVE_INFINITY

export class RegisterModel {
  readonly borders: readonly number[]
  readonly #histories: Write[][]
  #time = 0
  #nextId = 1

  constructor(sizeBytes: number, objectBytes: number, registerBytes: number) {
    const borders = new Set([0, sizeBytes])
    for (let at = 0; at < sizeBytes; at += objectBytes) borders.add(at)
    for (let at = registerBytes; at < sizeBytes; at += registerBytes) {
      const rest = Math.min(at % objectBytes, objectBytes - (at % objectBytes))
      if (rest >= 8 && sizeBytes - at >= 8) borders.add(at)
    }
    this.borders = [...borders].sort((a, b) => a - b)
    this.#histories = this.borders.slice(1).map(() => [this.#blank()])
  }

  #blank(): Write {
    return { id: 0, began: -2, ended: -1, durable: true }
  }

  get registers(): number {
    return this.#histories.length
  }

  now(): number {
    return ++this.#time
  }

  bytesOf(span: Span): { readonly offset: number; readonly length: number } {
    const offset = this.borders[span.from]!
    return { offset, length: this.borders[span.until]! - offset }
  }

  /** The registers inside a byte range. */
  spanOf(offset: number, until: number): Span {
    const from = this.borders.findIndex((border) => border >= offset)
    let end = from
    while (end < this.registers && this.borders[end + 1]! <= until) end++
    return { from, until: end }
  }

  /** A new write; `id` 0 writes zeros. The data has the id all over. */
  begin(span: Span, isZero: boolean): { readonly write: Write; readonly data: Buffer } {
    const id = isZero ? 0 : this.#nextId++
    const write: Write = { id, began: this.now(), ended: NEVER, durable: false }
    for (let i = span.from; i < span.until; i++) this.#histories[i]!.push(write)
    const data = Buffer.alloc(isZero ? 0 : this.bytesOf(span).length)
    for (let i = span.from; i < span.until && !isZero; i++) {
      const start = this.borders[i]! - this.borders[span.from]!
      this.#fill(data.subarray(start, this.borders[i + 1]! - this.borders[span.from]!), id)
    }
    return { write, data }
  }

  #fill(register: Buffer, id: number): void {
    const word = Buffer.alloc(4)
    word.writeUInt32LE(id)
    register.fill(word)
  }

  /** Everything that ended before `time` is durable. */
  flushed(time: number): void {
    for (const history of this.#histories) {
      for (const write of history) if (write.ended < time) write.durable = true
    }
  }

  /** Undefined when all registers of the span hold something allowed, else a complaint. */
  check(span: Span, bytes: Buffer, readBegan: number): string | undefined {
    return this.#judge(span, bytes, (later) => later.ended < readBegan)
  }

  checkAfterPowerCut(bytes: Buffer): string | undefined {
    return this.#judge({ from: 0, until: this.registers }, bytes, (later) => later.durable)
  }

  #judge(span: Span, bytes: Buffer, settles: (later: Write) => boolean): string | undefined {
    const base = this.borders[span.from]!
    for (let i = span.from; i < span.until; i++) {
      const found = bytes.subarray(this.borders[i]! - base, this.borders[i + 1]! - base)
      const history = this.#histories[i]!
      const allowed = history.filter(
        (write) => !history.some((later) => write.ended < later.began && settles(later)),
      )
      const expected = Buffer.alloc(found.length)
      const isFine = allowed.some(({ id }) => {
        this.#fill(expected, id)
        return expected.equals(found)
      })
      if (isFine) continue
      const ids = allowed.map(({ id }) => id).join(' or ')
      return `register ${i} at ${this.borders[i]}: found ${found.readUInt32LE(0)}, allowed ${ids}`
    }
    return undefined
  }

  /** Forgets writes that neither a read begun at `oldestRead` or later nor a power cut may show. */
  prune(oldestRead: number): void {
    this.#histories.forEach((history, i) => {
      this.#histories[i] = history.filter(
        (write) => !history.some((x) => write.ended < x.began && x.durable && x.ended < oldestRead),
      )
    })
  }
}
