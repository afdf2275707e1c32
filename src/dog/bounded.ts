/** Many operations at once, never more than a limit: memory and the sheep's queue stay bounded. */

/** Objects a bulk command works on at the same time. */
export const OBJECTS_IN_FLIGHT = 8

/** Work that runs side by side; after a failure nothing new is started. */
export class InFlight {
  readonly #limit: number
  readonly #running = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined

  constructor(limit: number = OBJECTS_IN_FLIGHT) {
    this.#limit = limit
  }

  /**
   * Resolves once there is room and `work` was started. Rejects with the first failure of any
   * work.
   */
  async start(work: () => Promise<void>): Promise<void> {
    while (this.#running.size >= this.#limit) await Promise.race(this.#running)
    this.#check()
    const running: Promise<void> = work().then(
      () => void this.#running.delete(running),
      (error: unknown) => {
        this.#running.delete(running)
        this.#failure ??= { error }
      },
    )
    this.#running.add(running)
  }

  /** Resolves when everything started is over; rejects with the first failure. */
  async finish(): Promise<void> {
    while (this.#running.size > 0) await Promise.race(this.#running)
    this.#check()
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }
}

/** `work` on every item side by side, results in the order of the items. */
export async function* inOrder<Item, Result>(
  items: Iterable<Item>,
  work: (item: Item) => Promise<Result>,
  limit: number = OBJECTS_IN_FLIGHT,
): AsyncGenerator<Result, void, undefined> {
  const running: Promise<Result>[] = []
  try {
    for (const item of items) {
      const result = work(item)
      // Awaited in its turn; until then a rejection must not count as unhandled.
      result.catch(() => undefined)
      running.push(result)
      if (running.length >= limit) yield await running.shift()!
    }
    while (running.length > 0) yield await running.shift()!
  } finally {
    // Whoever stops listening early must not pull the connection from under the rest.
    await Promise.allSettled(running)
  }
}
