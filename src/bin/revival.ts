/**
 * A sheep that outlives the loss of its cluster. A node the others have gone on without starts over on its
 * store, as it would after a crash: there is one way back in, and nothing of the life before leaks into
 * the next. Its clients lose their connections without an answer, so that those who can reconnect ask again.
 */
import type { Log } from '../base/log.js'

export interface Ending {
  /** Undefined: it was asked for. */
  readonly reason: string | undefined
  /** It may come back. */
  readonly again: boolean
}

/** A sheep from its start until its end. */
export interface Life {
  readonly over: Promise<Ending>
  stop(): Promise<void>
}

export interface LongLife {
  /** The reason of the last end. */
  readonly over: Promise<string | undefined>
  stop(): Promise<void>
}

/** `begin` starts a life; `isRevival` false only for the first one. Rejects as the first one does. */
export async function withRevivals(
  begin: (isRevival: boolean) => Promise<Life>,
  log: Log,
): Promise<LongLife> {
  let life = await begin(false)
  let isStopping = false
  /** The change from one life to the next. */
  let change: Promise<void> = Promise.resolve()

  const follow = async (): Promise<string | undefined> => {
    for (;;) {
      const { reason, again } = await life.over
      if (!again || isStopping) return reason
      log.info('node.revival', { reason })
      change = life.stop().then(async () => {
        if (!isStopping) life = await begin(true)
      })
      try {
        await change
      } catch (error) {
        return `it could not start again: ${error instanceof Error ? error.message : String(error)}`
      }
      if (isStopping) return undefined
    }
  }
  const over = follow()
  return {
    over,
    stop: async () => {
      isStopping = true
      await change.catch(() => undefined)
      await life.stop()
    },
  }
}
