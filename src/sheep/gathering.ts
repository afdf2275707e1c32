/**
 * Collects as many fragments of a coded object as are needed: those of data first, one of parity for each that
 * fails or is late. A late one still counts when it comes in time.
 */
import { Code } from '../base/codes.js'
import type { ErasureCode } from '../model/erasure.js'
import { moreTelling } from './outcome.js'

/** Reads one fragment. `late` may be called before `got`, once. */
export type Ask = (
  index: number,
  got: (result: Code, bytes: Uint8Array) => void,
  late: () => void,
) => void

type Gathered = (result: Code, fragments: readonly (Uint8Array | undefined)[]) => void

export class Gathering {
  readonly #code: ErasureCode
  readonly #done: Gathered
  readonly #fragments: (Uint8Array | undefined)[]
  /** Indexes not asked yet, of nodes that are there. */
  readonly #spare: number[]
  #got = 0
  /** Those that came, and those that may still come. */
  #asked = 0
  #worst: Code = Code.NO_OBJ
  #over = false

  /** `count`: fragments the object has; `candidates`: indexes that can be asked, in the order of preference. */
  constructor(
    code: ErasureCode,
    from: { readonly count: number; readonly candidates: readonly number[] },
    done: Gathered,
  ) {
    this.#code = code
    this.#done = done
    this.#fragments = new Array<Uint8Array | undefined>(from.count).fill(undefined)
    this.#spare = [...from.candidates]
  }

  start(ask: Ask): void {
    const { data } = this.#code.strips
    if (this.#spare.length < data) {
      this.#finish(this.#fragments.length === 0 ? Code.NO_OBJ : Code.HALT)
      return
    }
    const first = this.#spare.splice(0, data)
    this.#asked = first.length
    for (const index of first) this.#askFor(index, ask)
  }

  #askFor(index: number, ask: Ask): void {
    const got: Parameters<Ask>[1] = (result, bytes) => {
      if (this.#over) return
      if (result === Code.SUCCESS) {
        this.#fragments[index] = bytes
        if (++this.#got === this.#code.strips.data) {
          this.#finish(Code.SUCCESS)
          return
        }
      } else {
        if (result !== Code.NO_OBJ) this.#worst = moreTelling(this.#worst, result)
        this.#asked--
        if (this.#askSpare(ask)) return
      }
      // A success may be the last answer as well, when too many others have failed before it.
      if (this.#asked > this.#got) return
      // Some fragments without the others are not an object, but neither is that nothing.
      const isPart = this.#worst === Code.NO_OBJ && this.#got > 0
      this.#finish(isPart ? Code.EIO : this.#worst)
    }
    ask(index, got, () => {
      if (!this.#over) this.#askSpare(ask)
    })
  }

  #askSpare(ask: Ask): boolean {
    const next = this.#spare.shift()
    if (next === undefined) return false
    this.#asked++
    this.#askFor(next, ask)
    return true
  }

  #finish(result: Code): void {
    this.#over = true
    this.#done(result, this.#fragments)
  }
}
