/**
 * Questions to the user. One reader serves all questions of a run, so answers may share one pipe.
 */
import { Exit, Failure } from './failure.js'
import type { Output } from './output.js'

/** Longer lines are no answers. */
const LINE_BYTES_MAX = 4096

export class LineReader {
  readonly #source: () => AsyncIterable<Buffer>
  #chunks: AsyncIterator<Buffer> | undefined
  #rest: Buffer = Buffer.alloc(0)

  /** `source` is called at the first read. */
  constructor(source: () => AsyncIterable<Buffer>) {
    this.#source = source
  }

  /** The next line without its end; undefined at the end of the input. */
  async read(): Promise<string | undefined> {
    this.#chunks ??= this.#source()[Symbol.asyncIterator]()
    for (;;) {
      const end = this.#rest.indexOf(0x0a)
      if (end >= 0 || this.#rest.length > LINE_BYTES_MAX) return this.#take(end)
      const next = await this.#chunks.next()
      if (next.done === true) return this.#rest.length > 0 ? this.#take(-1) : undefined
      this.#rest = Buffer.concat([this.#rest, next.value])
    }
  }

  #take(end: number): string {
    const line = end < 0 ? this.#rest : this.#rest.subarray(0, end)
    this.#rest = end < 0 ? Buffer.alloc(0) : this.#rest.subarray(end + 1)
    return line.toString()
  }
}

/**
 * Goes on only after an answer that starts with `yes`; anything else ends the program with status
 * 0.
 */
export async function confirm(
  ask: { readonly out: Output; readonly lines: LineReader },
  question: string,
): Promise<void> {
  ask.out.text(question)
  const answer = await ask.lines.read()
  if (answer === undefined || !/^yes/i.test(answer)) throw new Failure(Exit.ok, [])
}

/** The question before a cluster that holds data is wiped. */
export const NOT_EMPTY_QUESTION =
  '    __\n' +
  "   ()'`;\n" +
  '   /\\|`\n' +
  '  /  |   Caution! The cluster is not empty.\n' +
  '(/_)_|_  Are you sure you want to continue? [yes/no]: '
