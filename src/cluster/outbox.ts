/** What a member still has to get into the order: first come, first served, bounded. */
import { Code, SheepError } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import { type ClusterState, type Entry, type MemberId, mayAppend } from './membership.js'

/** Bytes of messages waiting to be ordered; more means the order has stopped. */
const OUTBOX_BYTES_MAX = 16 * 1024 * 1024
/** Entries without a message weigh something too. */
const ENTRY_BYTES = 64

export class Outbox {
  #entries: Entry[] = []
  #bytes = 0
  #answer: Extract<Entry, { kind: 'accept' | 'decline' }> | undefined

  /**
   * Queues an entry. Throws, and keeps nothing, when its message is too long (INVALID_PARMS) or too
   * much waits already (AGAIN).
   */
  add(entry: Entry): void {
    const bytes = ENTRY_BYTES + messageBytes(entry)
    if (bytes - ENTRY_BYTES > LIMITS.clusterMessageBytesMax) {
      const limit = LIMITS.clusterMessageBytesMax
      const text = `cluster message of ${bytes - ENTRY_BYTES} bytes, at most ${limit} are allowed`
      throw new SheepError(Code.INVALID_PARMS, text)
    }
    if (this.#bytes + bytes > OUTBOX_BYTES_MAX) {
      throw new SheepError(Code.AGAIN, 'too many cluster messages wait to be ordered')
    }
    this.#bytes += bytes
    this.#entries.push(entry)
  }

  /** The answer to a join overtakes what waits: nothing else can be ordered before it. */
  answer(joiner: MemberId, answer: Buffer): void {
    this.#answer = { kind: 'accept', joiner, answer }
  }

  /** The same for a joiner that cannot come in. */
  decline(joiner: MemberId, reason: string): void {
    this.#answer = { kind: 'decline', joiner, reason }
  }

  /** What may be ordered next after `state`; the caller takes it off with `taken` when it is. */
  next(state: ClusterState, self: MemberId): Entry | undefined {
    if (this.#answer !== undefined) {
      if (mayAppend(state, self, this.#answer)) return this.#answer
      this.#answer = undefined
    }
    const first = this.#entries[0]
    if (first === undefined || mayAppend(state, self, first)) return first
    // A BLOCK that finds no room must not stand in the way of the UNBLOCK that makes room.
    const unblock = first.kind === 'block' && this.#entries.find(({ kind }) => kind === 'unblock')
    return unblock && mayAppend(state, self, unblock) ? unblock : undefined
  }

  taken(entry: Entry): void {
    if (entry === this.#answer) {
      this.#answer = undefined
      return
    }
    this.#entries.splice(this.#entries.indexOf(entry), 1)
    this.#bytes -= ENTRY_BYTES + messageBytes(entry)
  }
}

function messageBytes(entry: Entry): number {
  return entry.kind === 'notify' || entry.kind === 'unblock' ? entry.message.length : 0
}
