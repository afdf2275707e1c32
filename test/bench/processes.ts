/** What servers cost, from /proc: processor time with that of ended children, and memory (man 5 proc). */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

const TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK']).toString())
/** Fields of /proc/PID/stat after the command name: utime, stime, cutime, cstime. */
const TIME_FIELDS = [11, 12, 13, 14]

/** Microseconds of processor time the processes have used so far. */
export function cpuMicroseconds(pids: readonly number[]): number {
  let ticks = 0
  for (const pid of pids) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The name stands in parentheses and may hold blanks.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    for (const field of TIME_FIELDS) ticks += Number(fields[field])
  }
  return (ticks * 1e6) / TICKS_PER_SECOND
}

/** Of all processes together; `peak` adds the peaks, which need not have been at one time. */
export function memoryMebibytes(pids: readonly number[]): { now: number; peak: number } {
  const sum = { now: 0, peak: 0 }
  for (const pid of pids) {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    sum.now += Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024
    sum.peak += Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024
  }
  return sum
}
