/** What keeps the copies of objects equal, put together for one node. */
import type { Log } from '../../base/log.js'
import { nodeKey } from '../../model/node.js'
import type { Oid } from '../../model/oid.js'
import type { InFlightLog } from '../../store/in-flight-log.js'
import type { ObjectStore } from '../../store/object-store.js'
import type { Clock } from '../../world/world.js'
import type { Peers } from '../peers.js'
import type { NodeState } from '../state.js'
import { InFlight } from './in-flight.js'
import { Settling } from './settling.js'
import { Suspects } from './suspects.js'

export interface EqualCopiesOptions {
  readonly state: NodeState
  readonly store: ObjectStore
  readonly peers: Peers
  readonly clock: Clock
  readonly log: Log
  readonly inFlightLog: InFlightLog
  /** During an epoch one more object is to be compared. */
  readonly compare: (oid: Oid) => void
}

export interface EqualCopies {
  readonly inFlight: InFlight
  readonly suspects: Suspects
  readonly settling: Settling
}

export function equalCopies(options: EqualCopiesOptions): EqualCopies {
  const { state, store, peers, clock, log, inFlightLog } = options
  const inFlight = new InFlight({ clock, log: inFlightLog, store })
  const suspects = new Suspects({
    ...{ state, inFlight, peers, clock, log },
    isHere: (oid) => store.has(oid) || store.piecesOf(oid).some((id) => store.has(id)),
    isAnywhere: (oid) => store.piecesOf(oid).length > 0,
    added: options.compare,
  })
  suspects.add(inFlightLog.found)
  const settling = new Settling({
    ...{ clock, log, peers },
    isSelf: (node) => state.isSelf(node),
    isMember: (key) => state.members.some((member) => nodeKey(member) === key),
    settledHere: (oids) => inFlight.settled(state.selfKey, oids),
  })
  return { inFlight, suspects, settling }
}
