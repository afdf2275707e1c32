/** What a handler of one operation gets. */
import type { BufferPool } from '../../base/buffer-pool.js'
import type { Reply } from '../../sheep/answer.js'
import type { Caller } from '../../sheep/caller.js'
import type { SheepNode } from '../../sheep/node.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import type { IscsiPath } from '../../wire/sheepdog/iscsi-path.js'
import type { NbdRecord } from '../../wire/sheepdog/nbd-statistics.js'
import type { Connection } from '../../world/world.js'
import type { LogLevelControl } from './log-level.js'

export interface NbdFigures {
  /** Records from an id on, in the order of ids, at most `most`. */
  records(firstId: number, most: number): readonly NbdRecord[]
}

/** Initiators that other nodes pass on. */
export interface PassedInitiators {
  /** Undefined: this daemon has no iSCSI door. */
  take: ((connection: Connection, path: IscsiPath) => void) | undefined
}

export interface DoorContext {
  readonly node: SheepNode
  /** Somebody asked this one daemon to stop. */
  readonly kill: () => void
  readonly logLevel: LogLevelControl
  /** What the NBD door of this daemon has served. */
  readonly nbd: NbdFigures
  readonly iscsi?: PassedInitiators
}

export interface OperationContext extends DoorContext {
  /** Of large answers. */
  readonly memory: BufferPool
}

export interface Operation {
  /** Allowed before the cluster runs (protocol spec, section 8). */
  readonly force: boolean
  /** Done late it changes nothing: a newer connection of the same node need not wait for its end. */
  readonly isHarmless?: true
  /** Calls `reply` exactly once. Of what writes objects the body is borrowed until then (session.ts); else it is the handler's. */
  readonly run: (context: OperationContext, request: Frame, reply: Reply, caller: Caller) => void
}

export type OperationTable = ReadonlyMap<number, Operation>
