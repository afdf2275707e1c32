/** How a command ends other than by success: an exit status and what to tell the user. */

/** Exit statuses of `dog` (dog spec, section 1). */
export const Exit = { ok: 0, failed: 1, system: 2, exists: 3, missing: 5, usage: 64 } as const

/** What a shell reports for a program killed by SIGPIPE: the reader of our output went away. */
export const EXIT_BROKEN_PIPE = 141

/** What commands of 1.0 that return -1 end with. */
export const EXIT_REFUSED = 255

interface FailureHow {
  /** The subcommand's help follows on stdout. */
  readonly showHelp?: boolean
}

/** Thrown to end a command; `lines` go to stderr. */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly status: number
  readonly lines: readonly string[]
  readonly showHelp: boolean

  constructor(status: number, lines: readonly string[], how: FailureHow = {}) {
    super(lines.join('\n'))
    this.status = status
    this.lines = lines
    this.showHelp = how.showHelp ?? false
  }
}

/** A failure with one line and status 1. */
export function failed(...lines: string[]): Failure {
  return new Failure(Exit.failed, lines)
}

/** The user called the command wrongly: reason on stderr, help on stdout, status 64. */
export function misused(...lines: string[]): Failure {
  return new Failure(Exit.usage, lines, { showHelp: true })
}
