/**
 * The log of a process: pino decides and serialises, this file gives the lines the looks and the
 * places of sheepdog's `-l level=,dir=,format=,dst=` (cluster spec, section 2.1).
 */
import { pino } from 'pino'
import { LOG_LEVELS, type Log, type LogFields, type LogLevel } from '../../base/log.js'
import { FileSink, type LineSink, StdoutSink, SyslogSink } from './log-sink.js'

/** `default`: time, level, event, fields. `server`: the same with the pid. `json`: an object a line. */
export const LOG_FORMATS = ['default', 'server', 'json'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]

/** `default`: the file sheep.log in `dir`. */
export const LOG_DESTINATIONS = ['default', 'syslog', 'stdout'] as const
export type LogDestination = (typeof LOG_DESTINATIONS)[number]

export interface LogOptions {
  /** Default: info. */
  readonly level?: LogLevel
  /** Default: server. */
  readonly format?: LogFormat
  /** Default: default. */
  readonly destination?: LogDestination
  /** Existing directory; needed, and looked at, with the destination `default` only. */
  readonly dir?: string
}

/** Each line is with the kernel when the call that wrote it returns. */
export interface NodeLog extends Log {
  /** Opens the file anew, after log rotation moved the old one away. Throws an errno error. */
  reopen(): void
  setLevel(level: LogLevel): void
  /** What is logged afterwards is lost. */
  close(): void
}

/** How levels are shown in text, in 1.0's words. */
const LEVEL_NAMES: Readonly<Record<LogLevel, string>> = {
  emerg: 'EMERG',
  alert: 'ALERT',
  crit: 'CRIT',
  err: 'ERROR',
  warning: 'WARN',
  notice: 'NOTICE',
  info: 'INFO',
  debug: 'DEBUG',
}
const LEVEL_COLUMNS = 6
const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')
/** Keys every line has; a field of that name is shown with an underscore behind it. */
const OWN_KEYS: ReadonlySet<string> = new Set(['level', 'time', 'pid', 'event'])

/** pino counts upwards: the gravest has the highest number. */
const PINO_LEVELS = Object.fromEntries(
  LOG_LEVELS.map((name, severity) => [name, 80 - 10 * severity]),
) as Record<LogLevel, number>

interface Line {
  readonly level: LogLevel
  /** ISO 8601, UTC. */
  readonly time: string
  readonly pid: number
  readonly event: string
  readonly [field: string]: string | number | boolean
}

/** Throws an errno error when the file cannot be opened. */
export function openLog(options: LogOptions): NodeLog {
  const { level = 'info', format = 'server', destination = 'default' } = options
  const sink = openSink(destination, options.dir)
  const write = (json: string): void => {
    const line = JSON.parse(json) as Line
    sink.write(LOG_LEVELS.indexOf(line.level), textOf(line, format, sink.isJournal === true))
  }
  const writeJson = (json: string): void => sink.write(severityOf(json), json.trimEnd())
  const logger = pino(
    {
      customLevels: PINO_LEVELS,
      useOnlyCustomLevels: true,
      level,
      base: { pid: process.pid },
      messageKey: 'event',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: format === 'json' ? writeJson : write },
  )
  const at =
    (name: 'err' | 'warning' | 'info' | 'debug') =>
    (event: string, fields: LogFields = {}): void => {
      if (logger.isLevelEnabled(name)) logger[name](plain(fields), event)
    }
  return {
    error: at('err'),
    warn: at('warning'),
    info: at('info'),
    debug: at('debug'),
    reopen: () => sink.reopen(),
    setLevel: (name) => {
      logger.level = name
    },
    close: () => sink.close(),
  }
}

function openSink(destination: LogDestination, dir: string | undefined): LineSink {
  switch (destination) {
    case 'stdout':
      return new StdoutSink()
    case 'syslog':
      return new SyslogSink()
    case 'default':
      if (dir === undefined) throw new TypeError('a log file needs a directory')
      return new FileSink(dir)
  }
}

/** JSON has no bigint, and an object id is text to everybody who reads logs. */
function plain(fields: LogFields): Record<string, string | number | boolean> {
  const out: Record<string, string | number | boolean> = {}
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue
    out[OWN_KEYS.has(key) ? `${key}_` : key] = typeof value === 'bigint' ? `${value}` : value
  }
  return out
}

function severityOf(json: string): number {
  return LOG_LEVELS.indexOf((JSON.parse(json) as Line).level)
}

/** `Nov 21 10:17:33   INFO [main] epoch.advance from=1 to=2` */
function textOf(line: Line, format: LogFormat, isJournal: boolean): string {
  const fields = Object.entries(line)
    .filter(([key]) => !OWN_KEYS.has(key))
    .map(([key, value]) => ` ${key}=${valueText(value)}`)
    .join('')
  const level = LEVEL_NAMES[line.level].padStart(LEVEL_COLUMNS)
  const who = format === 'server' ? `[${line.pid}:main]` : '[main]'
  const text = `${level} ${who} ${line.event}${fields}`
  // The system log has its own time in front of every line.
  return isJournal ? text.trimStart() : `${timeText(new Date(line.time))} ${text}`
}

function timeText(time: Date): string {
  const two = (value: number): string => `${value}`.padStart(2, '0')
  const day = `${time.getDate()}`.padStart(2)
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(':')
  return `${MONTHS[time.getMonth()]} ${day} ${clock}`
}

/** Names come from clients: quoted, so that none can look like a field or a line of its own. */
function valueText(value: string | number | boolean): string {
  const text = `${value}`
  return /^[!#-<>-~]+$/.test(text) ? text : escapeControls(JSON.stringify(text))
}

/** What JSON lets through and a terminal may obey: DEL, C1 controls, line and paragraph separators. */
function escapeControls(text: string): string {
  return text.replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
