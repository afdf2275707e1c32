/** Time as this machine has it. */
import type { Clock } from '../world.js'

/** Node fires a longer timer at once. */
const TIMER_MS_MAX = 2 ** 31 - 1

export class NodeClock implements Clock {
  now(): number {
    return Date.now()
  }

  /** clock_gettime(2), CLOCK_MONOTONIC. */
  monotonic(): number {
    return performance.now()
  }

  after(delayMs: number, fn: () => void): () => void {
    let left = delayMs
    const step = (): NodeJS.Timeout => {
      const part = Math.min(left, TIMER_MS_MAX)
      left -= part
      return setTimeout(() => {
        if (left > 0) timer = step()
        else fn()
      }, part)
    }
    let timer = step()
    return () => clearTimeout(timer)
  }

  soon(fn: () => void): void {
    setImmediate(fn)
  }
}
