/** Doing the parts of one request side by side, with callbacks and without growing the stack. */
import { Code, type Done } from '../base/codes.js'

/**
 * Runs `step` for 0..count-1, at most `width` at once, and calls `done` once after the last one
 * started has ended, with the first failure. After a failure no further step starts.
 * A step that completes before it returns costs a turn of a loop, not a stack frame.
 */
export function spread(
  count: number,
  width: number,
  step: (index: number, done: Done) => void,
  done: Done,
): void {
  let next = 0
  let running = 0
  let outcome: Code = Code.SUCCESS
  let pumping = false
  const pump = (): void => {
    if (pumping) return
    pumping = true
    while (running < width && next < count && outcome === Code.SUCCESS) {
      running++
      step(next++, ended)
    }
    pumping = false
    if (running === 0) done(outcome)
  }
  const ended = (code: Code): void => {
    running--
    if (outcome === Code.SUCCESS) outcome = code
    pump()
  }
  pump()
}
