/** An initiator's bytes to and from the node that has its volume. Neither side runs ahead of the other. */
import type { Connection } from '../../world/world.js'

export class Tunnel {
  readonly #near: Connection
  readonly #far: Connection
  #isOver = false

  /** `far` has not been read yet; events of `near` are passed on by its owner. */
  constructor(near: Connection, far: Connection) {
    this.#near = near
    this.#far = far
    far.on({
      data: (chunk) => {
        if (!near.write(chunk)) far.pause()
      },
      drain: () => near.resume(),
      // The initiator logs in anew, and finds whoever has the volume then.
      close: () => this.#end(() => near.end()),
    })
  }

  /** What the initiator said; kept. */
  send(chunk: Buffer): void {
    if (!this.#far.write(chunk)) this.#near.pause()
  }

  /** The initiator takes bytes again. */
  drained(): void {
    this.#far.resume()
  }

  /** The initiator has gone. */
  close(): void {
    this.#end(() => this.#far.destroy())
  }

  #end(act: () => void): void {
    if (this.#isOver) return
    this.#isOver = true
    act()
  }
}
