/**
 * Which part of a torn cluster goes on, as a value without time.
 *
 * Of two parts at most one may. A part goes on when it is more than half of the members before the tear, or
 * exactly half and holds the lowest one. Who left in order, or died on a host that says so, is not missing
 * but gone, and does not count.
 *
 * The parts may disagree about who was a member: the last join, or the last tear, may have reached some and not
 * the others. So a member keeps every view (list of members) that not all of its members are known to share
 * yet, and a part must be enough in each of them. Why that suffices: if two parts went on, take the newest view
 * both have; whoever knows only an older one makes it impossible that a newer one has been settled without it,
 * so both had to be enough in the same view, with the same lowest member, and enough is more than half.
 * Members that are gone only shrink the view for the part they were in: messages of a host that were
 * delivered anywhere were delivered in its own part. But who is gone may have gone because it could not go on in
 * a view, so a view it did not share stays unsettled until a later one is settled.
 */
import type { ProcessId } from '../../world/corosync.js'
import { type ProcessKey, processKey } from './message.js'

interface View {
  /** Without those that are gone since. */
  readonly members: Map<ProcessKey, ProcessId>
  /** Who has yet to say that this is its view too. */
  readonly open: Set<ProcessKey>
}

export class Votes {
  readonly #self: ProcessKey
  /** Oldest first; the last one is the current membership. */
  #views: View[]

  constructor(self: ProcessId, members: readonly ProcessId[]) {
    this.#self = processKey(self)
    this.#views = [this.#view(members)]
  }

  /** The current members. */
  get members(): ProcessId[] {
    return [...this.#current.members.values()]
  }

  /** Views that must be satisfied; one when all agree. */
  get unsettled(): number {
    return this.#views.length
  }

  isMember(key: ProcessKey): boolean {
    return this.#current.members.has(key)
  }

  joined(process: ProcessId): void {
    this.#views.push(this.#view([...this.members, process]))
    this.#settle()
  }

  /** It has left or died: nothing to wait for. */
  gone(process: ProcessId): void {
    const key = processKey(process)
    for (const view of this.#views) view.members.delete(key)
  }

  /** These cannot be heard any more. True when the others are enough to go on; then they are the members. */
  unreachable(processes: readonly ProcessId[]): boolean {
    const missing = new Set(processes.map(processKey))
    const rest = this.members.filter((process) => !missing.has(processKey(process)))
    const goesOn = this.areEnough(new Set(rest.map(processKey)))
    if (rest.length < this.#current.members.size) this.#views.push(this.#view(rest))
    this.#settle()
    return goesOn
  }

  /** Whether these alone could not have been left behind. */
  areEnough(alive: ReadonlySet<ProcessKey>): boolean {
    return this.#views.every(({ members }) => isEnough(members, alive))
  }

  /** `from` says whom it takes for members. */
  heard(from: ProcessKey, view: readonly ProcessId[]): void {
    const keys = view.map(processKey)
    for (const one of this.#views) {
      const isSame = keys.length === one.members.size && keys.every((key) => one.members.has(key))
      if (isSame) one.open.delete(from)
    }
    this.#settle()
  }

  #view(processes: readonly ProcessId[]): View {
    const members = new Map(processes.map((process) => [processKey(process), process]))
    const open = new Set(members.keys())
    open.delete(this.#self)
    return { members, open }
  }

  get #current(): View {
    const view = this.#views.at(-1)
    if (view === undefined) throw new Error('there is always a view')
    return view
  }

  /** Forgets what came before the newest view all its members share. */
  #settle(): void {
    const settled = this.#views.findLastIndex(({ open }) => open.size === 0)
    if (settled > 0) this.#views = this.#views.slice(settled)
  }
}

function isEnough(
  members: ReadonlyMap<ProcessKey, ProcessId>,
  alive: ReadonlySet<ProcessKey>,
): boolean {
  const here = [...members.keys()].filter((key) => alive.has(key)).length
  if (2 * here !== members.size) return 2 * here > members.size
  const [lowest] = [...members.values()].sort((a, b) => a.nodeId - b.nodeId || a.pid - b.pid)
  return lowest === undefined || alive.has(processKey(lowest))
}
