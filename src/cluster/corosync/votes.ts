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
 *
 * A joiner does not know what the others had to satisfy before it came. It knows the view without itself; when whoever
 * answered had still older ones to satisfy, nothing is enough for it before a view with itself in it is settled.
 *
 * Who is gone was in the part that was told so: what a host says anywhere, it says in its own part. So it shrinks the
 * current view, and in older ones, where others may still count it as missing, its vote stays with the part it was in:
 * nobody else can have it any more, and it acts no more on what it knew. Of strangers that go (they were
 * missing before) nothing follows.
 */
import type { ProcessId } from '../../world/corosync.js'
import { type ProcessKey, processKey } from './message.js'

interface View {
  /** Without those that went while this was the current view. */
  readonly members: Map<ProcessKey, ProcessId>
  /** Members that went in this part later. */
  readonly supporters: Set<ProcessKey>
  /** Who has yet to say that this is its view too. */
  readonly open: Set<ProcessKey>
}

export class Votes {
  readonly #self: ProcessKey
  /** Oldest first; the last one is the current membership. */
  #views: View[]

  /** There may be older views than those known here. */
  #isPartial = false

  /** The views as they were when this member lost others of whom it does not know yet what becomes of them. */
  #held: readonly View[] | undefined

  /** The first member, alone; or as good as. */
  constructor(self: ProcessId, members: readonly ProcessId[] = [self]) {
    this.#self = processKey(self)
    this.#views = [this.#view(members)]
  }

  /** A joiner that these let in; `isWhole`: they had no view to satisfy but the one without the joiner. */
  static joining(self: ProcessId, others: readonly ProcessId[], isWhole: boolean): Votes {
    const votes = new Votes(self, others)
    votes.joined(self)
    votes.#isPartial = !isWhole
    return votes
  }

  /** The current members. */
  get members(): ProcessId[] {
    return [...this.#current.members.values()]
  }

  /** Views that must be satisfied; one when all agree. */
  get unsettled(): number {
    return this.#views.length
  }

  /** What the others had to satisfy is not known yet: nothing is enough. */
  get isPartial(): boolean {
    return this.#isPartial
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
    if (!this.#current.members.delete(key)) return
    for (const view of this.#views) {
      view.open.delete(key)
      if (view.members.has(key)) view.supporters.add(key)
    }
    this.#settle()
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

  /** From now on no view is forgotten, because this may all be taken back. */
  hold(): void {
    this.#held ??= this.#views.map(copyOf)
  }

  /** Everything is as it was before `hold`, which goes on. */
  restore(): void {
    if (this.#held !== undefined) this.#views = this.#held.map(copyOf)
  }

  /** Nothing is taken back any more. */
  release(): void {
    this.#held = undefined
    this.#settle()
  }

  /**
   * Whether these are enough in the view that was held, each of them by being there. The same on all who hold the same
   * view, whatever each knows of older ones and of the dead.
   */
  wereEnough(alive: ReadonlySet<ProcessKey>): boolean {
    const view = this.#held?.at(-1)
    return view !== undefined && isEnough({ ...view, supporters: new Set() }, alive)
  }

  /** Whether these alone could not have been left behind. */
  areEnough(alive: ReadonlySet<ProcessKey>): boolean {
    return !this.#isPartial && this.#views.every((view) => isEnough(view, alive))
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
    return { members, supporters: new Set(), open }
  }

  get #current(): View {
    const view = this.#views.at(-1)
    if (view === undefined) throw new Error('there is always a view')
    return view
  }

  /** Forgets what came before the newest view all its members share. */
  #settle(): void {
    if (this.#held !== undefined) return
    const settled = this.#views.findLastIndex(({ open }) => open.size === 0)
    if (settled <= 0) return
    this.#views = this.#views.slice(settled)
    this.#isPartial = false
  }
}

function copyOf({ members, supporters, open }: View): View {
  return { members: new Map(members), supporters: new Set(supporters), open: new Set(open) }
}

function isEnough({ members, supporters }: View, alive: ReadonlySet<ProcessKey>): boolean {
  const isHere = (key: ProcessKey): boolean => alive.has(key) || supporters.has(key)
  const here = [...members.keys()].filter(isHere).length
  if (2 * here !== members.size) return 2 * here > members.size
  const [lowest] = [...members.values()].sort((a, b) => a.nodeId - b.nodeId || a.pid - b.pid)
  return lowest === undefined || isHere(processKey(lowest))
}
