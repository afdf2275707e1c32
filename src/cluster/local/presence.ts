/**
 * Who is alive: a member holds the lock on its file `member.<id>` from before its JOIN until its process
 * ends, however it ends. A lock that can be taken means a dead member, for ever: no id is used twice.
 *
 * A process that is stopped (SIGSTOP) keeps its lock and stays a member. One that is stopped during the
 * microseconds of a probe hides the death of the probed one until it goes on or is killed.
 */
import type { FileLock, Files } from '../../world/world.js'
import type { MemberId } from '../membership.js'

/** Members probed in one round: bounds its cost; round after round reaches all. */
const PROBES_MAX = 8

export type PresenceFiles = Pick<Files, 'lock' | 'exists'>

export class Presence {
  readonly #files: PresenceFiles
  readonly #directory: string
  readonly #dead = new Set<MemberId>()
  #turn = 0

  constructor(files: PresenceFiles, directory: string) {
    this.#files = files
    this.#directory = directory
  }

  /** Takes the lock of a member to be; undefined when somebody has it. */
  claim(id: MemberId): FileLock | undefined {
    return this.#files.lock(memberPath(this.#directory, id))
  }

  /** False when somebody removed the file from under its living owner. */
  isClaimed(id: MemberId): boolean {
    return this.#files.exists(memberPath(this.#directory, id))
  }

  isDead(id: MemberId): boolean {
    if (this.#dead.has(id)) return true
    const lock = this.claim(id)
    if (lock === undefined) return false
    lock.release()
    this.#dead.add(id)
    return true
  }

  /** Looks at some of `ids`, the next ones the next time. */
  probe(ids: readonly MemberId[]): void {
    for (let i = 0; i < Math.min(PROBES_MAX, ids.length); i++) {
      this.#turn = (this.#turn + 1) % ids.length
      const id = ids[this.#turn]
      if (id !== undefined) this.isDead(id)
    }
  }

  /** Known to be dead, without looking. */
  knownDead(id: MemberId): boolean {
    return this.#dead.has(id)
  }

  /** The others have been buried. */
  keepOnly(ids: readonly MemberId[]): void {
    for (const id of this.#dead) if (!ids.includes(id)) this.#dead.delete(id)
  }
}

export function memberPath(directory: string, id: MemberId): string {
  return `${directory}/member.${id}`
}

/** The member a file belongs to by its name; undefined for other files. */
export function memberOfFile(name: string): MemberId | undefined {
  const match = /^member\.([1-9]\d{0,14})$/.exec(name)
  return match === null ? undefined : (Number(match[1]) as MemberId)
}
