/**
 * What a run prints. As in 1.0, stdout is buffered in blocks unless it is a terminal while stderr
 * is not buffered at all, so that both merged into one file come in the order scripts have golden
 * files of.
 */
import { errnoName, errnoText } from './errno.js'
import { EXIT_BROKEN_PIPE, Exit, Failure } from './failure.js'

const BLOCK_BYTES = 4096

export interface OutputStream {
  readonly isTTY: boolean
  /** Resolves when `bytes` may be reused and more is welcome; rejects with an errno error. */
  write(bytes: Uint8Array): Promise<void>
}

export interface ErrorStream {
  write(bytes: Uint8Array): void
}

export class Output {
  readonly #stdout: OutputStream
  readonly #stderr: ErrorStream
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #sent: Promise<void> = Promise.resolve()
  #error: unknown
  /** The error is reported once, however often it stops somebody. */
  #told = false

  constructor(stdout: OutputStream, stderr: ErrorStream) {
    this.#stdout = stdout
    this.#stderr = stderr
  }

  get isTTY(): boolean {
    return this.#stdout.isTTY
  }

  text(text: string): void {
    const bytes = textBytes(text)
    this.#waiting.push(bytes)
    this.#waitingBytes += bytes.length
    if (this.#stdout.isTTY) this.#send(this.#waitingBytes)
    else if (this.#waitingBytes >= BLOCK_BYTES) {
      this.#send(this.#waitingBytes - (this.#waitingBytes % BLOCK_BYTES))
    }
  }

  line(text = ''): void {
    this.text(`${text}\n`)
  }

  /** The machine-readable form of a result: one indented JSON document. */
  json(value: unknown): void {
    this.line(JSON.stringify(value, undefined, 2))
  }

  /** One line to stderr, at once. */
  error(line: string): void {
    this.#stderr.write(textBytes(`${line}\n`))
  }

  /** Payload: goes out after the text before it, with the reader's pace. */
  async bytes(bytes: Uint8Array): Promise<void> {
    this.#send(this.#waitingBytes)
    await this.#sent
    this.#check()
    await this.#stdout.write(bytes).catch((error: unknown) => {
      this.#error ??= error
    })
    this.#check()
  }

  /** Everything printed so far is out. Throws a Failure when it could not be written. */
  async flush(): Promise<void> {
    this.#send(this.#waitingBytes)
    await this.#sent
    this.#check()
  }

  #send(length: number): void {
    if (length === 0) return
    const all = Buffer.concat(this.#waiting)
    const rest = all.subarray(length)
    this.#waiting = rest.length > 0 ? [rest] : []
    this.#waitingBytes = rest.length
    const block = all.subarray(0, length)
    this.#sent = this.#sent
      .then(() => (this.#error === undefined ? this.#stdout.write(block) : undefined))
      .catch((error: unknown) => {
        this.#error ??= error
      })
  }

  #check(): void {
    const error = this.#error
    if (error === undefined) return
    if (errnoName(error) === 'EPIPE') throw new Failure(EXIT_BROKEN_PIPE, [])
    const lines = this.#told ? [] : [`Failed to write to stdout: ${errnoText(error)}`]
    this.#told = true
    throw new Failure(Exit.system, lines)
  }
}

const RAW_CHARACTERS = /[\uf700-\uf7ff]/

/** Text to bytes; names that are not UTF-8 (base/bytes.ts) come out as the bytes they are. */
export function textBytes(text: string): Buffer {
  if (!RAW_CHARACTERS.test(text)) return Buffer.from(text)
  const pieces = text.split(/([\uf700-\uf7ff]+)/)
  return Buffer.concat(
    pieces.map((piece, i) => Buffer.from(piece, i % 2 === 1 ? 'latin1' : 'utf8')),
  )
}

/** Columns are counted in bytes, as printf does it. Longer text is not cut. */
export function padLeft(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - textBytes(text).length)) + text
}

export function padRight(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - textBytes(text).length))
}
