/**
 * Reads what `ava --tap` reports, as it comes: one callback a test, and at the end the numbers. Everything a
 * broken runner can do to us counts as a failure: a report without its end, failures in the summary that had
 * no line of their own, an exit code that contradicts the lines.
 */

export interface TestLine {
  readonly outcome: 'passed' | 'failed' | 'skipped'
  readonly title: string
  /** When the line came, by the reader's clock; its details, and so this report, come later. */
  readonly atMs: number
  /** Comments and diagnostics that follow the line. */
  readonly details: readonly string[]
}

export interface Tally {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

export const NOTHING: Tally = { passed: 0, failed: 0, skipped: 0 }

export function addTallies(a: Tally, b: Tally): Tally {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  }
}

export interface TapReader {
  /** One line of the report, without its end. */
  line(text: string): void
  /** The report is over and the runner ended with `code`. Returns the numbers to be believed. */
  end(code: number): Tally
}

const RESULT = /^(ok|not ok) \d+ - (.*?)( # (SKIP|TODO))?$/
const SUMMARY = /^# (pass|fail|skip) (\d+)$/
const DETAIL = /^( {2}|# {3})/

/** `finished` is called for each test once its details are complete. */
export function tapReader(finished: (line: TestLine) => void, now: () => number): TapReader {
  const seen = { passed: 0, failed: 0, skipped: 0 }
  const summary = new Map<string, number>()
  let open:
    | { outcome: TestLine['outcome']; title: string; atMs: number; details: string[] }
    | undefined

  const close = () => {
    if (open === undefined) return
    seen[open.outcome]++
    finished(open)
    open = undefined
  }
  const invent = (title: string) => {
    open = { outcome: 'failed', title, atMs: now(), details: [] }
    close()
  }
  const line = (text: string) => {
    const result = RESULT.exec(text)
    const sum = SUMMARY.exec(text)
    if (result !== null) {
      close()
      open = { outcome: outcomeOf(result), title: result[2] ?? '', atMs: now(), details: [] }
    } else if (sum !== null) {
      close()
      summary.set(sum[1]!, Number(sum[2]))
    } else if (open !== undefined && DETAIL.test(text)) open.details.push(text)
  }
  const end = (code: number): Tally => {
    close()
    const declared = summary.get('fail')
    if (declared === undefined) invent(`the test runner ended without a summary (code ${code})`)
    for (let n = seen.failed; n < (declared ?? 0); n++) invent('a test that never ended')
    if (code !== 0 && seen.failed === 0) invent(`the test runner ended with code ${code}`)
    return seen
  }
  return { line, end }
}

/** A test marked as still to do is a failure here: nothing of the kind may be left. */
function outcomeOf(result: RegExpExecArray): TestLine['outcome'] {
  if (result[4] === 'SKIP') return 'skipped'
  return result[1] === 'ok' ? 'passed' : 'failed'
}
