/**
 * Loads the native binding (native-bindings/posix/posix.c) and says what it offers.
 *
 * Every function throws TypeError or RangeError on a wrong argument and, when the system call fails,
 * an errno error (`code`, `errno`, `syscall`); those that return a promise reject with it.
 */
import type { Log } from '../../base/log.js'
import { loadAddon } from './addon.js'
import { portableNative, SHORTCOMINGS } from './portable.js'

export interface Native {
  /** Bytes read, short at the end of the file only; -1: needs the disk; -2: this file never can. */
  readNow(fd: number, into: Uint8Array, position: number): number
  /** Bytes written: always all of them. */
  writeNow(fd: number, data: Uint8Array, position: number): number
  /** How far behind a multiple of 4096 the memory begins. Throws ENOTSUP where nobody can tell. */
  directOffset(bytes: Uint8Array): number
  /** Next offset holding data at or after `from`; -1 when only a hole follows. */
  seekData(fd: number, from: number): number
  /** Next offset inside a hole at or after `from` (the end of the file is one); -1 past the end. */
  seekHole(fd: number, from: number): number
  /** `name` with its namespace: `user.x`. ENOTSUP where the file system has no attributes. */
  getAttribute(file: string | number, name: string): Buffer | undefined
  setAttribute(file: string | number, name: string, value: Uint8Array): void
  /** Whether it was there. */
  removeAttribute(file: string | number, name: string): boolean
  /** Descriptor that holds the lock until closed; -1 when somebody else has it. */
  lock(path: string): number
  /** Reserves; extends the file when it ends earlier. ENOTSUP on some file systems. */
  allocate(fd: number, offset: number, length: number): Promise<void>
  /** Gives back; the range reads as zeros and the size stays. ENOTSUP on some file systems. */
  punch(fd: number, offset: number, length: number): Promise<void>
  syncfs(path: string): Promise<void>
  /** `severity`: 0 (emerg) to 7 (debug). */
  syslog(severity: number, line: string): void
}

let isTold = false

/** Throws an Error that names the remedy when the binding is missing or does not load. */
export function loadNative(): Native {
  const { binding, absent } = loadAddon('posix')
  if (absent === undefined) return binding as Native
  throw new Error(`${absent}; run \`npm run build\``)
}

/** The binding, or what does without; `log` is told once what that costs. */
export function nativeOrPortable(log: Log): Native {
  const { binding, absent } = loadAddon('posix')
  if (absent === undefined) return binding as Native
  if (!isTold) log.warn('binding.absent', { reason: absent, effect: SHORTCOMINGS })
  isTold = true
  return portableNative
}
