/**
 * One sync for many who wait: a sync that starts after a change covers it, whoever asked for it.
 * Used for fdatasync of an object and for the sync of a directory (group commit).
 */

export type SyncDone = (error: Error | null) => void

export class SharedSync {
  private readonly start: (done: SyncDone) => void
  private running: SyncDone[] | undefined
  private waiting: SyncDone[] = []
  private touched = false

  /** `start` begins one sync and calls back exactly once, never before it returned. */
  constructor(start: (done: SyncDone) => void) {
    this.start = start
  }

  /** A change was completed: only a sync that starts from now on covers it. */
  touch(): void {
    this.touched = true
  }

  /** Nothing has changed since the latest sync was started. */
  get current(): boolean {
    return !this.touched
  }

  get busy(): boolean {
    return this.running !== undefined
  }

  /** Calls back when everything that was touched before this call is on stable storage. */
  request(done: SyncDone): void {
    if (this.running !== undefined && !this.touched) {
      this.running.push(done)
      return
    }
    this.waiting.push(done)
    if (this.running === undefined) this.begin()
  }

  private begin(): void {
    this.running = this.waiting
    this.waiting = []
    this.touched = false
    this.start((error) => {
      const covered = this.running ?? []
      this.running = undefined
      if (this.waiting.length > 0) this.begin()
      for (const done of covered) done(error)
    })
  }
}

/** The same as a promise that rejects with the sync's error. */
export function requestSync(sync: SharedSync): Promise<void> {
  return new Promise((resolve, reject) => {
    sync.request((error) => (error === null ? resolve() : reject(error)))
  })
}
