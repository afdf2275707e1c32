/** The last line of `npm test` is only as good as the reading of ava's report. */
import test from 'ava'
import { type TestLine, tapReader } from '../tap.js'

const END = ['', '1..3', '# tests 3', '# pass 1', '# skip 1', '# fail 1', '']

function read(lines: readonly string[], code: number) {
  const seen: TestLine[] = []
  let clock = 0
  const reader = tapReader(
    (line) => seen.push(line),
    () => ++clock,
  )
  for (const line of lines) reader.line(line)
  return { tally: reader.end(code), seen }
}

test('passes, failures and skips are counted, a failure keeps its details', (t) => {
  const report = [
    'TAP version 13',
    'ok 1 - store › reads',
    'ok 2 - guest › boots (missing: fio) # SKIP',
    'not ok 3 - store › writes',
    '#   a log line',
    '  ---',
    '    name: AssertionError',
    '  ...',
  ]
  const { tally, seen } = read([...report, ...END], 1)
  t.deepEqual(tally, { passed: 1, failed: 1, skipped: 1 })
  t.is(seen[2]?.title, 'store › writes')
  t.deepEqual(seen[2]?.details, ['#   a log line', '  ---', '    name: AssertionError', '  ...'])
})

test('a report that breaks off is a failure, whatever the exit code says', (t) => {
  t.is(read(['TAP version 13', 'ok 1 - fine'], 0).tally.failed, 1)
  t.is(read([], 0).tally.failed, 1)
})

test('failures that only the summary knows are counted', (t) => {
  const { tally } = read(['ok 1 - fine', '# pass 1', '# fail 2'], 1)
  t.deepEqual(tally, { passed: 1, failed: 2, skipped: 0 })
})

test('an exit code that contradicts the lines is a failure', (t) => {
  t.is(read(['ok 1 - fine', '# pass 1', '# fail 0'], 1).tally.failed, 1)
  t.is(read(['ok 1 - fine', '# pass 1', '# fail 0'], 0).tally.failed, 0)
})

test('a test still to be written counts as failed', (t) => {
  t.is(read(['not ok 1 - one day # TODO', '# pass 0', '# fail 1'], 1).tally.failed, 1)
})
