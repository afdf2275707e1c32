/** The process's log level, as `dog node log level` reads and sets it. */
export interface LogLevelControl {
  /** 0 (emerg) to 7 (debug). */
  get(): number
  /** False when there is no such level. */
  set(level: number): boolean
}
