/** Wakes whoever waits for something to have changed; rings before anybody waits are not lost. */
export class Bell {
  #wake: () => void = () => undefined
  #next: Promise<void> | undefined

  /** Resolves at the first ring after this call. Ask first, look at the world, then wait. */
  next(): Promise<void> {
    this.#next ??= new Promise((resolve) => {
      this.#wake = resolve
    })
    return this.#next
  }

  readonly ring = (): void => {
    this.#next = undefined
    this.#wake()
  }
}
