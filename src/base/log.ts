/** Log events, not prose: a dotted name and its fields. Bound to an implementation in `world`. */

/** From the gravest to the most talkative; the index is syslog's severity. */
export const LOG_LEVELS = [
  'emerg',
  'alert',
  'crit',
  'err',
  'warning',
  'notice',
  'info',
  'debug',
] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

export type LogFields = Readonly<Record<string, string | number | bigint | boolean | undefined>>

export interface Log {
  error(event: string, fields?: LogFields): void
  warn(event: string, fields?: LogFields): void
  info(event: string, fields?: LogFields): void
  debug(event: string, fields?: LogFields): void
}

const ignore = (): void => undefined

/** A log that keeps nothing: for tools and tests that do not look at it. */
export const silentLog: Log = { error: ignore, warn: ignore, info: ignore, debug: ignore }

/** Anything thrown, for a field of a log event: with its stack when there is one. */
export function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
