/** Where log lines go. All of them write at once: the last line before a crash is there. */
import fs from 'node:fs'
import { join } from 'node:path'
import { loadNative, type Native } from './native.js'
import { goesToJournal } from './service.js'

export interface LineSink {
  /** Whoever reads the lines has time, severity and process of each. */
  readonly isJournal?: boolean
  /** `severity`: syslog's, 0 to 7. `text`: one line without its end. Never throws. */
  write(severity: number, text: string): void
  reopen(): void
  close(): void
}

const FILE_NAME = 'sheep.log'
/** The binding takes 8191 bytes; a character cut in two may grow. */
const SYSLOG_LINE_BYTES_MAX = 8000
const STDERR = 2
const STDOUT = 1

/**
 * A log that cannot be written (full disk) must not stop the daemon it reports on: the loss is told
 * to stderr once, counted, and written down when lines go through again.
 */
export class FileSink implements LineSink {
  readonly #path: string
  #fd: number
  #lost = 0

  constructor(dir: string) {
    this.#path = join(dir, FILE_NAME)
    this.#fd = fs.openSync(this.#path, 'a', 0o640)
  }

  write(_severity: number, text: string): void {
    if (this.#fd < 0) return
    const note = this.#lost > 0 ? `(${this.#lost} lines could not be written)\n` : ''
    try {
      writeFully(this.#fd, `${note}${text}\n`)
      this.#lost = 0
    } catch (error) {
      if (this.#lost === 0) complain(this.#path, error)
      this.#lost++
    }
  }

  reopen(): void {
    if (this.#fd < 0) return
    const fresh = fs.openSync(this.#path, 'a', 0o640)
    fs.closeSync(this.#fd)
    this.#fd = fresh
  }

  close(): void {
    if (this.#fd < 0) return
    fs.closeSync(this.#fd)
    this.#fd = -1
  }
}

/**
 * Lines that nobody reads any more (EPIPE) are dropped. For the journal each line begins with its severity
 * (sd-daemon(3)), which the journal takes off again.
 */
export class StdoutSink implements LineSink {
  readonly isJournal = goesToJournal(STDOUT)
  #open = true

  write(severity: number, text: string): void {
    if (!this.#open) return
    try {
      writeFully(STDOUT, this.isJournal ? `<${severity}>${text}\n` : `${text}\n`)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') complain('stdout', error)
      this.#open = false
    }
  }

  reopen(): void {
    // There is no name behind it to open again.
  }

  close(): void {
    this.#open = false
  }
}

/** The system log, through syslog(3). */
export class SyslogSink implements LineSink {
  readonly isJournal = true
  readonly #native: Native
  #open = true

  constructor(native: Native = loadNative()) {
    this.#native = native
  }

  write(severity: number, text: string): void {
    if (!this.#open) return
    const bytes = Buffer.from(text.replaceAll('\0', '\\0'))
    this.#native.syslog(severity, bytes.subarray(0, SYSLOG_LINE_BYTES_MAX).toString())
  }

  reopen(): void {
    // syslog(3) finds a restarted system log by itself.
  }

  close(): void {
    this.#open = false
  }
}

/** A pipe set to non-blocking (by whoever shares it) takes bytes when its reader is ready. */
function writeFully(fd: number, text: string): void {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(fd, bytes, at)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      pauseMs(1)
    }
  }
}

function pauseMs(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

function complain(where: string, error: unknown): void {
  try {
    const reason = error instanceof Error ? error.message : String(error)
    fs.writeSync(STDERR, `sheep: the log ${where} cannot be written: ${reason}\n`)
  } catch {
    // Log and stderr are both gone: there is nowhere left to say it.
  }
}
