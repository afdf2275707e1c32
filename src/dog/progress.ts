/**
 * The progress bar of long commands (dog spec, section 2); prints nothing unless stdout is a
 * terminal.
 */
import type { Output } from './output.js'
import { sizeText } from './sizes.js'

/** Cells of a terminal line that are not the bar's. */
const FRAME_COLUMNS = 30

export class Progress {
  readonly #out: Output
  readonly #columns: number
  readonly #total: number
  readonly #text: (value: number) => string
  #done = 0

  /** `total` and what is added to it are bytes unless `text` says otherwise. */
  constructor(
    out: Output,
    columns: number,
    total: number,
    text: (value: number) => string = sizeText,
  ) {
    this.#out = out
    this.#columns = columns
    this.#total = total
    this.#text = text
    this.#show()
  }

  add(amount: number): void {
    this.#done = Math.min(this.#total, this.#done + amount)
    this.#show()
  }

  #show(): void {
    if (!this.#out.isTTY || this.#total === 0) return
    this.#out.text(progressLine(this.#done, this.#total, this.#columns, this.#text))
    if (this.#done === this.#total) this.#out.text('\n')
  }
}

/** One state of the bar, from the carriage return on. */
export function progressLine(
  done: number,
  total: number,
  columns: number,
  text: (value: number) => string,
): string {
  const cells = Math.max(0, columns - FRAME_COLUMNS)
  let bar = ''
  for (let i = 0; i < cells; i++) {
    if ((total * (i + 1)) / cells <= done) bar += '='
    else bar += (total * i) / cells <= done ? '>' : ' '
  }
  const percent = ((done / total) * 100).toFixed(1).padStart(5)
  return `\r${`${percent} % [${bar}] ${text(done)} / ${text(total)}`.padEnd(columns)}`
}
