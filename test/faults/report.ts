/** The verdict of a fault run for people. */
import type { Verdict } from './fault-run.js'

const LINES_MAX = 20

export function verdictTable(verdict: Verdict): {
  readonly text: string
  readonly passed: boolean
} {
  const { mismatches, failures, copies, objects, done, cleanSeconds, counts } = verdict
  const sum = (of: (one: Verdict['counts'][number]) => number): number =>
    counts.reduce((total, one) => total + of(one), 0)
  const most = (of: (one: Verdict['counts'][number]) => number): string =>
    (Math.max(0, ...counts.map(of)) / 1000).toFixed(1)
  const rows: readonly (readonly [string, string])[] = [
    ['faults', [...done].map(([kind, times]) => `${kind} ${times}`).join(', ') || 'none'],
    [
      'writes, reads, flushes',
      `${sum((c) => c.writes)}, ${sum((c) => c.reads)}, ${sum((c) => c.flushes)}`,
    ],
    ['connections, failed requests', `${sum((c) => c.connections)}, ${sum((c) => c.failed)}`],
    [
      'slowest request, longest gap',
      `${most((c) => c.slowestMs)} s, ${most((c) => c.longestGapMs)} s`,
    ],
    ['clean after mending', `${cleanSeconds.map((s) => s.toFixed(1)).join(' ')} s`],
    ['objects compared', `${objects}`],
    ['copies that differ', `${copies.length}`],
    ['wrong blocks', `${mismatches.length}`],
    ['failures', `${failures.length}`],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  const table = rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`)
  const details = [...mismatches, ...copies, ...failures]
  const passed = details.length === 0
  const shown = details.slice(0, LINES_MAX).map((line) => `  ${line}`)
  if (details.length > shown.length) shown.push(`  and ${details.length - shown.length} more`)
  return { text: [...table, passed ? 'PASS' : 'FAIL', ...shown].join('\n'), passed }
}
