/**
 * A sheep that outlives the loss of its cluster. A node the others have gone on without starts over on its
 * store, as it would after a crash: there is one way back in, and nothing of the life before leaks into
 * the next. Its clients lose their connections without an answer, so that those who can reconnect ask again.
 */
import type { Log } from '../base/log.js'
import type { Clock } from '../world/world.js'

/**
 * Everything a life waits for at its end has a limit of its own, seconds at most. When one is missing after all, a node
 * that neither serves nor comes back would hold its cluster up; the process ends instead, as if it had crashed.
 */
const END_MS = 60_000

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
  clock: Pick<Clock, 'after'>,
): Promise<LongLife> {
  let life = await begin(false)
  let isStopping = false
  let isStuck = false
  /** The change from one life to the next. */
  let change: Promise<void> = Promise.resolve()

  const follow = async (): Promise<string | undefined> => {
    for (;;) {
      const { reason, again } = await life.over
      if (!again || isStopping) return reason
      log.info('node.revival', { reason })
      change = inTime(life.stop(), clock).then(async (isOver) => {
        isStuck = !isOver
        if (!isStopping && isOver) life = await begin(true)
      })
      try {
        await change
      } catch (error) {
        return `it could not start again: ${error instanceof Error ? error.message : String(error)}`
      }
      if (isStuck) {
        const what = `its life before did not end within ${END_MS / 1000} s`
        log.error('node.stuck', { reason: what })
        return `it could not start again: ${what}`
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
      if (!isStuck) await life.stop()
    },
  }
}

/** False: it takes too long. */
function inTime(end: Promise<void>, clock: Pick<Clock, 'after'>): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(END_MS, () => resolve(false))
    end.then(() => resolve(true), reject).finally(cancel)
  })
}
