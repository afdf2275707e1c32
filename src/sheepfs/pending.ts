/**
 * Requests the kernel waits for. A process with a signal on its way asks for an end (INTERRUPT) and cannot even be killed before
 * it has its answer; when no sheep answers that may be never. So what changes nothing is answered with EINTR then, but not
 * before a moment has passed: many programs get signals all the time and do not expect it of files. What changes something waits:
 * that it was not done would be a lie if it is done later.
 */
import { FuseOp } from '../wire/fuse/constants.js'
import type { Clock } from '../world/world.js'

/** Answers come within this unless something is wrong. */
const GRACE_MS = 1_000

const HARMLESS: ReadonlySet<number> = new Set([
  FuseOp.LOOKUP,
  FuseOp.GETATTR,
  FuseOp.OPEN,
  FuseOp.OPENDIR,
  FuseOp.READ,
  FuseOp.READDIR,
  FuseOp.STATFS,
  FuseOp.GETXATTR,
  FuseOp.LISTXATTR,
  FuseOp.LSEEK,
  FuseOp.FSYNC,
])

export interface Waiting {
  readonly opcode: number
  readonly unique: bigint
}

export class Pending {
  readonly #clock: Pick<Clock, 'after'>
  /** Answers the request with EINTR. */
  readonly #giveUp: (request: Waiting) => void
  readonly #waiting = new Map<bigint, number>()

  constructor(clock: Pick<Clock, 'after'>, giveUp: (request: Waiting) => void) {
    this.#clock = clock
    this.#giveUp = giveUp
  }

  get size(): number {
    return this.#waiting.size
  }

  begin({ unique, opcode }: Waiting): void {
    this.#waiting.set(unique, opcode)
  }

  /** False: it has been answered already. */
  end(unique: bigint): boolean {
    return this.#waiting.delete(unique)
  }

  interrupt(unique: bigint): void {
    const opcode = this.#waiting.get(unique)
    if (opcode === undefined || !HARMLESS.has(opcode)) return
    this.#clock.after(GRACE_MS, () => {
      if (this.#waiting.has(unique)) this.#giveUp({ unique, opcode })
    })
  }
}
