/**
 * Tells the service manager what it wants to know (sd_notify(3)): READY and STOPPING, a status line that is true now, more
 * time while a start or a stop goes on, and that the process lives (WATCHDOG).
 *
 * All of it comes from timers of the event loop, so a loop that stands still says nothing. The watchdog's beat comes
 * after a trip through the thread pool besides: a process whose every thread hangs in a disk turns its loop and
 * serves nobody.
 */
import { describe, type Log } from '../../base/log.js'
import type { Notify } from '../../world/node/service.js'
import type { Clock } from '../../world/world.js'

/** How old the status line may be. */
const LOOK_MS = 1_000
/** While something goes on that may take long the manager is asked so often for so much more time. */
const EXTEND_MS = 10_000
const EXTENSION_MS = 60_000
/** What a stop may ask for in all: syncing disks takes its time, and a stop that hangs must not hide behind that. */
const STOP_MS_MAX = 300_000
/** Beats in the time the manager allows between two. */
const BEATS = 3

export interface NotifierOptions {
  readonly send: Notify
  readonly clock: Pick<Clock, 'after' | 'monotonic'>
  readonly log: Log
  /** The line for people, asked for again and again. */
  readonly status: () => string
  /** Undefined: nobody watches. */
  readonly watchdogMs: number | undefined
  /** CLOCK_MONOTONIC in microseconds. */
  readonly monotonicUsec: () => bigint
  /** Resolves when the process can still work. */
  readonly probe: () => Promise<unknown>
}

export interface ServiceNotifier {
  ready(): void
  /** `work` takes effect on what the manager was told to reload; it may throw. */
  reload(work: () => void): void
  stopping(): void
  /** The last word, and no more afterwards. */
  end(status?: string): void
}

/** For a process nobody manages. */
export const NO_NOTIFIER: ServiceNotifier = {
  ready: () => undefined,
  reload: (work) => work(),
  stopping: () => undefined,
  end: () => undefined,
}

export function startNotifier(options: NotifierOptions): ServiceNotifier {
  return new Notifier(options)
}

class Notifier implements ServiceNotifier {
  readonly #options: NotifierOptions
  #phase: 'starting' | 'ready' | 'stopping' | 'over' = 'starting'
  #phaseSince: number
  #extendedAt = Number.NEGATIVE_INFINITY
  #told = ''
  /** What a busy manager did not take yet. */
  #unsent = new Map<string, string>()
  #hasFailed = false
  #probing = false
  #cancelLook: () => void
  #cancelBeat: () => void

  constructor(options: NotifierOptions) {
    this.#options = options
    this.#phaseSince = options.clock.monotonic()
    this.#cancelLook = () => undefined
    this.#cancelBeat = () => undefined
    this.#look()
    this.#beat()
  }

  ready(): void {
    this.#enter('ready')
    this.#send({ READY: '1', ...this.#news() })
  }

  reload(work: () => void): void {
    this.#send({ RELOADING: '1', MONOTONIC_USEC: `${this.#options.monotonicUsec()}` })
    try {
      work()
    } finally {
      this.#send({ READY: '1' })
    }
  }

  stopping(): void {
    this.#enter('stopping')
    this.#send({ STOPPING: '1', ...this.#news() })
    this.#extend()
  }

  end(status?: string): void {
    if (this.#phase === 'over') return
    this.#enter('over')
    this.#cancelLook()
    this.#cancelBeat()
    if (status !== undefined) this.#send({ STATUS: oneLine(status) })
  }

  #enter(phase: 'ready' | 'stopping' | 'over'): void {
    this.#phase = phase
    this.#phaseSince = this.#options.clock.monotonic()
  }

  #look(): void {
    this.#send(this.#news())
    this.#extend()
    this.#cancelLook = this.#options.clock.after(LOOK_MS, () => this.#look())
  }

  /** The status line, if it is another one. */
  #news(): Record<string, string> {
    const { status } = this.#options
    const line = oneLine(this.#phase === 'stopping' ? 'Stopping' : status())
    if (line === this.#told) return {}
    this.#told = line
    return { STATUS: line }
  }

  #extend(): void {
    if (this.#phase === 'ready' || this.#phase === 'over') return
    const now = this.#options.clock.monotonic()
    if (now - this.#extendedAt < EXTEND_MS) return
    if (this.#phase === 'stopping' && now - this.#phaseSince > STOP_MS_MAX) return
    this.#extendedAt = now
    this.#send({ EXTEND_TIMEOUT_USEC: `${EXTENSION_MS * 1000}` })
  }

  #beat(): void {
    const { clock, log, watchdogMs, probe } = this.#options
    if (watchdogMs === undefined) return
    this.#cancelBeat = clock.after(watchdogMs / BEATS, () => this.#beat())
    if (this.#probing) {
      log.warn('service.watchdog.late', { reason: 'the thread pool does not answer' })
      return
    }
    this.#probing = true
    void probe().then(
      () => {
        this.#probing = false
        if (this.#phase !== 'over') this.#send({ WATCHDOG: '1' })
      },
      (error: unknown) => {
        this.#probing = false
        log.warn('service.watchdog.failed', { reason: describe(error) })
      },
    )
  }

  /** What could not be sent goes with the next; a newer value takes the place of an older one. */
  #send(values: Record<string, string>): void {
    for (const [key, value] of Object.entries(values)) this.#unsent.set(key, value)
    if (this.#unsent.size === 0) return
    const lines = Array.from(this.#unsent, ([key, value]) => `${key}=${value}`)
    try {
      this.#options.send(lines.join('\n'))
      this.#unsent = new Map()
      this.#hasFailed = false
    } catch (error) {
      if (!this.#hasFailed) {
        const reason = error instanceof Error ? error.message : String(error)
        this.#options.log.warn('service.notify.failed', { reason })
      }
      this.#hasFailed = true
    }
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]+/g, ' ').slice(0, 1000)
}
