/**
 * Corks what one connection sends: everything pushed during a turn of the event loop leaves with one
 * system call. Small pieces are copied together (cheaper than a scatter list); large ones are passed on.
 */

/** Pieces up to this size are copied. */
const COPIED_BYTES_MAX = 16 * 1024
const SLAB_BYTES = 64 * 1024

/** How pieces leave; false when the receiver is slower than we are. `sent` is called when nobody looks at them any more, or never. */
export type Send = (pieces: readonly Uint8Array[], sent?: () => void) => boolean

export class Outbox {
  readonly #send: Send
  readonly #soon: (fn: () => void) => void
  #pieces: Uint8Array[] = []
  #sent: (() => void)[] = []
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
  #from = 0
  #fill = 0
  #armed = false
  /** Bytes waiting for the end of this turn. */
  waitingBytes = 0

  constructor(send: Send, soon: (fn: () => void) => void) {
    this.#send = send
    this.#soon = soon
  }

  /** Takes `bytes`, which must not change until they have been `sent`; small ones are copied now. */
  push(bytes: Uint8Array, sent?: () => void): void {
    if (bytes.length === 0) {
      sent?.()
      return
    }
    this.waitingBytes += bytes.length
    if (bytes.length > COPIED_BYTES_MAX) {
      this.#closeRun()
      this.#pieces.push(bytes)
      if (sent !== undefined) this.#sent.push(sent)
    } else {
      if (this.#fill + bytes.length > SLAB_BYTES) this.#newSlab()
      this.#slab.set(bytes, this.#fill)
      this.#fill += bytes.length
      sent?.()
    }
    if (this.#armed) return
    this.#armed = true
    this.#soon(this.flush)
  }

  /** Sends what waits, now. */
  readonly flush = (): void => {
    this.#armed = false
    if (this.waitingBytes === 0) return
    this.#closeRun()
    const pieces = this.#pieces
    const sent = this.#sent
    this.#pieces = []
    this.#sent = []
    this.waitingBytes = 0
    if (this.#fill > SLAB_BYTES / 2) this.#newSlab()
    this.#send(pieces, sent.length === 0 ? undefined : () => runAll(sent))
  }

  #closeRun(): void {
    if (this.#fill > this.#from) this.#pieces.push(this.#slab.subarray(this.#from, this.#fill))
    this.#from = this.#fill
  }

  #newSlab(): void {
    this.#closeRun()
    this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
    this.#from = 0
    this.#fill = 0
  }
}

function runAll(all: readonly (() => void)[]): void {
  for (const fn of all) fn()
}
