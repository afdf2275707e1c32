/**
 * What corosync offers: closed process groups whose members see the same messages and membership changes in
 * the same order (cpg_overview(3)), and its idea of quorum (votequorum(5)).
 */

/** Identity of a process inside corosync. A process that leaves a group and joins again has the same one. */
export interface ProcessId {
  readonly nodeId: number
  readonly pid: number
}

/**
 * Why a process is not in the group any more. `left` and `died` are told by the corosync of its own host, so
 * the process is gone; `node-down` only says that this host is not heard of.
 */
export type Departure = 'left' | 'died' | 'node-down'

/** `joined` by itself, or `node-up`: two parts of a network found each other, each with its own history. */
export type Arrival = 'joined' | 'node-up'

export interface GroupChange {
  /** After the change. */
  readonly members: readonly ProcessId[]
  readonly left: readonly { readonly process: ProcessId; readonly why: Departure }[]
  readonly joined: readonly { readonly process: ProcessId; readonly why: Arrival }[]
}

export interface GroupEvents {
  /** Connected; the change that brings this process in follows. */
  opened(self: ProcessId): void
  /** Keeps `bytes`. */
  message(from: ProcessId, bytes: Buffer): void
  changed(change: GroupChange): void
  /** The connection is over, or never came about; nothing follows. The reason is a sentence for people. */
  closed(reason: string): void
}

export interface Group {
  /** One message of up to four pieces; they are copied. `busy`: flow control, try again later. */
  send(parts: readonly Buffer[]): 'sent' | 'busy' | 'closed'
  /** Leaves; nothing is told any more. */
  close(): void
}

export interface QuorumEvents {
  /** `undefined`: corosync is configured without a quorum provider and has no opinion. */
  changed(quorate: boolean | undefined): void
  closed(reason: string): void
}

export interface Corosync {
  join(group: string, events: GroupEvents): Group
  /** The returned function ends it. */
  watchQuorum(events: QuorumEvents): () => void
  /** Addresses of this host in corosync's configuration, the first ring's first. Rejects with a reason. */
  localAddresses(): Promise<string[]>
}
