/** Whether a sheep answers, for the status line of a process outside of the cluster: an idle connection does not tell. */
import type { RemoteAccess } from '../../remote/remote-access.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { plainRequest } from '../../wire/sheepdog/requests.js'
import type { Clock } from '../../world/world.js'

const ASK_MS = 5_000

export interface Answers {
  /** The question asked last has been answered, or may be yet. */
  readonly come: boolean
  stop(): void
}

/** Asks one small question after the other; an answer that is late waits for a sheep as all requests do. */
export function watchAnswers(
  access: Pick<RemoteAccess, 'call'>,
  clock: Pick<Clock, 'after'>,
): Answers {
  let come = true
  let isOver = false
  let cancel = (): void => undefined
  const ask = (): void => {
    let isAnswered = false
    let isDue = false
    const next = (): void => {
      if (isOver) return
      if (isAnswered) ask()
      else {
        isDue = true
        come = false
      }
    }
    const answered = (): void => {
      isAnswered = true
      come = true
      if (isDue && !isOver) ask()
    }
    cancel = clock.after(ASK_MS, next)
    // Failed for good: whoever asked is being ended.
    access.call(plainRequest({ opcode: Op.STAT_SHEEP })).then(answered, () => undefined)
  }
  ask()
  return {
    get come() {
      return come
    },
    stop: () => {
      isOver = true
      cancel()
    },
  }
}
