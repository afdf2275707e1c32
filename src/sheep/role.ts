/**
 * What a node is to its cluster: one that stores objects, with vnodes computed from its space or a fixed number of
 * them (-V), or a gateway without any (-g). Decided by the command line, checked against what the store remembers
 * (cluster spec, section 2.1).
 */
import { nodeKey, type SdNode } from '../model/node.js'
import type { StoreConfig } from '../store/config.js'
import { ClusterFlag } from '../wire/sheepdog/opcodes.js'
import { UNFORMATTED } from './state.js'

/** vnodes a node announces under the automatic strategy. */
const VNODES_AUTOMATIC = 128

export type Role =
  | { readonly kind: 'automatic' }
  | { readonly kind: 'fixed'; readonly vnodes: number }
  | { readonly kind: 'gateway' }

/**
 * The configuration to start with. The space of a node is fixed at its first start, so that placement does not
 * move by itself; `dog cluster reweight` measures it again.
 */
export function configFor(
  role: Role,
  known: StoreConfig | undefined,
  measuredBytes: number,
): StoreConfig {
  const config: StoreConfig = {
    createdAt: UNFORMATTED.ctime,
    flags: UNFORMATTED.flags,
    copies: 0,
    copyPolicy: 0,
    blockSizeShift: 0,
    storeName: '',
    cleanShutdown: false,
    spaceBytes: 0,
    ...known,
  }
  const isMeasured = config.spaceBytes !== 0 || role.kind === 'gateway'
  const spaceBytes = isMeasured ? config.spaceBytes : measuredBytes
  if (config.createdAt !== 0n) return { ...config, spaceBytes }
  // A cluster that has not been formatted has the strategy its nodes were started with.
  const rest = config.flags & ~ClusterFlag.AUTO_VNODES
  const flags = role.kind === 'fixed' ? rest : rest | ClusterFlag.AUTO_VNODES
  return { ...config, flags, spaceBytes }
}

/** What the node tells the others of its size. */
export function weightOf(
  role: Role,
  { spaceBytes }: StoreConfig,
): Pick<SdNode, 'vnodes' | 'spaceBytes'> {
  if (role.kind === 'gateway') return { vnodes: 0, spaceBytes: 0 }
  return { vnodes: role.kind === 'fixed' ? role.vnodes : VNODES_AUTOMATIC, spaceBytes }
}

export interface StartQuestion {
  readonly role: Role
  readonly config: StoreConfig
  readonly self: Pick<SdNode, 'host' | 'port'>
  /** The newest epoch in this store's log; empty when there is none. */
  readonly lastNodes: readonly SdNode[]
}

/** Why a store must not be started in this role; undefined when it may. */
export function refusalOfRole({
  role,
  config,
  self,
  lastNodes,
}: StartQuestion): string | undefined {
  if (config.createdAt === 0n || role.kind === 'gateway') return undefined
  const isAutomatic = (config.flags & ClusterFlag.AUTO_VNODES) !== 0
  if (isAutomatic && role.kind === 'fixed') {
    return 'this store is of a cluster that computes vnode numbers from disk space: start it without -V'
  }
  if (isAutomatic || role.kind === 'automatic') {
    if (isAutomatic) return undefined
    return 'this store is of a cluster with fixed vnode numbers: start it with -V NUMBER'
  }
  const recorded = lastNodes.find((node) => nodeKey(node) === nodeKey(self))?.vnodes ?? 0
  if (recorded === 0 || recorded === role.vnodes) return undefined
  return (
    `the cluster knows this node with ${recorded} vnodes, -V says ${role.vnodes}: start it with ` +
    `-V ${recorded}, and change the number with 'dog node vnodes set' while it runs`
  )
}
