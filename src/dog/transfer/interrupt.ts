/** SIGINT and SIGTERM while something half done would stay behind: it is cleaned up first. */
import type { DogIo } from '../command.js'

/** `work` sees the interruption in its signal; what it does then is its own matter. */
export async function interruptible<Result>(
  io: DogIo,
  work: (stop: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController()
  const forget = io.onInterrupt(() => controller.abort())
  try {
    return await work(controller.signal)
  } finally {
    forget()
  }
}
