/**
 * Loads the native binding (native-bindings/posix/posix.c) and says what it offers.
 *
 * Every function throws TypeError or RangeError on a wrong argument and, when the system call fails,
 * an errno error (`code`, `errno`, `syscall`); those that return a promise reject with it.
 */
import { createRequire } from 'node:module'

export interface Native {
  /** Bytes read, short at the end of the file only; -1: needs the disk; -2: this file never can. */
  readNow(fd: number, into: Uint8Array, position: number): number
  /** Bytes written: always all of them. */
  writeNow(fd: number, data: Uint8Array, position: number): number
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

/** build/native/posix.node as seen from build/src/world/node. */
const ADDON = '../../../native/posix.node'

let loaded: Native | undefined

/** Throws an Error that names the remedy when the binding is missing or does not load. */
export function loadNative(): Native {
  if (loaded !== undefined) return loaded
  try {
    loaded = createRequire(import.meta.url)(ADDON) as Native
    return loaded
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`the native binding does not load; run \`npm run build\` (${reason})`, {
      cause: error,
    })
  }
}
