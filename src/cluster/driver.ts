/**
 * What a membership driver must deliver: one totally ordered sequence of events, the same on every
 * member (cluster spec, section 5).
 *
 *  - A joiner sees only what is ordered after its own JOIN; its accept carries the member list.
 *  - Of the BLOCKs only the oldest is active; JOIN, LEAVE and NOTIFY go on meanwhile. UNBLOCK ends the
 *    oldest one and delivers its message as a notification, in order. A dead sender's BLOCK is dropped.
 *  - Own notifications come back like everybody else's.
 */
import type { SdNode } from '../model/node.js'

export interface DriverEvents {
  /**
   * This member has been chosen to answer a join: why the joiner cannot come in, undefined when it can. Asked
   * before anybody sees the joiner as a member; its `join` rejects with the reason. A driver whose order has no
   * such answer leaves the question out: then the joiner judges its accept itself, at the price of two epochs.
   */
  joinRefusal?(joiner: SdNode, members: readonly SdNode[], request: Buffer): string | undefined
  /**
   * This member has been chosen to answer a join. Returns the answer every member gets with the
   * accept. `members` does not hold the joiner; when it is empty the joiner is this node itself.
   */
  joinRequest(joiner: SdNode, members: readonly SdNode[], request: Buffer): Buffer
  /** A node is in; `members` holds it. The first accept a process sees is its own. */
  accepted(joiner: SdNode, members: readonly SdNode[], answer: Buffer): void
  left(node: SdNode, members: readonly SdNode[]): void
  notified(sender: SdNode, message: Buffer): void
  /** This node's BLOCK became the active one: do the work, then call `unblock`. */
  blocked(): void
  /** A member announced new properties of itself (weight). */
  updated(node: SdNode, members: readonly SdNode[]): void
  /**
   * The node serves: its cluster has the members it needs. Of two that meet, the one that only waits gives way;
   * left out, nobody serves.
   */
  isServing?(): boolean
  /**
   * The others have gone on without this node, but it may come back: it stops serving at once, forgets what
   * it waits for, and calls `join` again. Nothing is delivered until that is accepted.
   */
  suspended(reason: string): void
  /** The driver cannot keep its promises any more; the node must stop serving at once. */
  lost(reason: string): void
}

export interface ClusterDriver {
  readonly name: string
  /** Address other members reach this node at, as dotted or colon text, when none is configured. */
  localAddress(): string
  /**
   * Until when (by the monotonic clock, in milliseconds) this member may be sure that the others have not
   * gone on without it; Infinity when that cannot happen. Cheap: asked before objects are served. May lie
   * in the past, and may move either way at any time, but what was once promised holds.
   */
  sureUntil(): number
  /** Asks to become a member; events start with this node's own accept. Rejects with a reason. */
  join(self: SdNode, request: Buffer, events: DriverEvents): Promise<void>
  /** Leaves in order: the others see `left` without waiting for a time-out. */
  leave(): Promise<void>
  notify(message: Buffer): void
  block(): void
  unblock(message: Buffer): void
  updateNode(node: SdNode): void
}
