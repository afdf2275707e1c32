/** Operation numbers and flags (protocol spec, sections 5 and 7). */

export const Op = {
  CREATE_AND_WRITE_OBJ: 0x01,
  READ_OBJ: 0x02,
  WRITE_OBJ: 0x03,
  REMOVE_OBJ: 0x04,
  DISCARD_OBJ: 0x05,
  NEW_VDI: 0x11,
  LOCK_VDI: 0x12,
  RELEASE_VDI: 0x13,
  GET_VDI_INFO: 0x14,
  READ_VDIS: 0x15,
  FLUSH_VDI: 0x16,
  DEL_VDI: 0x17,
  GET_CLUSTER_DEFAULT: 0x18,
  GET_NODE_LIST: 0x82,
  MAKE_FS: 0x84,
  SHUTDOWN: 0x85,
  STAT_SHEEP: 0x86,
  STAT_CLUSTER: 0x87,
  GET_VDI_ATTR: 0x89,
  FORCE_RECOVER: 0x8a,
  GET_STORE_LIST: 0x90,
  /**
   * Ours, of numbers 1.0 has no handler for. SUSPECT: the copies of an object may differ, compare them. SETTLED: the
   * sender's writes to these objects have ended on every copy.
   */
  SUSPECT: 0x91,
  SETTLED: 0x92,
  /** Ours as well: about the right to cache a volume (wire/sheepdog/cache.ts). */
  CACHE_RIGHT: 0x93,
  CLEANUP: 0x94,
  STAT_RECOVERY: 0x97,
  FLUSH_DEL_CACHE: 0x98,
  NOTIFY_VDI_DEL: 0x99,
  KILL_NODE: 0x9a,
  GET_OBJ_LIST: 0xa1,
  GET_EPOCH: 0xa2,
  CREATE_AND_WRITE_PEER: 0xa3,
  READ_PEER: 0xa4,
  WRITE_PEER: 0xa5,
  REMOVE_PEER: 0xa6,
  /** Ours too: a node introduces itself on a new connection (wire/sheepdog/hello.ts). */
  HELLO: 0xa7,
  ENABLE_RECOVER: 0xa8,
  DISABLE_RECOVER: 0xa9,
  /** Ours: objects of the answering node whose copies may differ, as of the beginning of an epoch. */
  GET_SUSPECTS: 0xaa,
  GET_VDI_COPIES: 0xab,
  COMPLETE_RECOVERY: 0xac,
  /**
   * Numbers sheepdog 1.0 reserves without a handler (it answers INVALID_PARMS). Ours: FLUSH_NODES waits
   * until a node has no write of the volume under way any more, FLUSH_PEER makes its copies durable.
   */
  FLUSH_NODES: 0xad,
  FLUSH_PEER: 0xae,
  NOTIFY_VDI_ADD: 0xaf,
  DELETE_CACHE: 0xb0,
  MD_INFO: 0xb1,
  MD_PLUG: 0xb2,
  MD_UNPLUG: 0xb3,
  GET_HASH: 0xb4,
  REWEIGHT: 0xb5,
  /** Of the object cache up to 0.9; 1.0 has no handlers. */
  GET_CACHE_INFO: 0xb6,
  CACHE_PURGE: 0xb7,
  STAT: 0xb8,
  GET_LOGLEVEL: 0xb9,
  SET_LOGLEVEL: 0xba,
  EXIST: 0xbd,
  CLUSTER_INFO: 0xbe,
  ALTER_CLUSTER_COPY: 0xbf,
  ALTER_VDI_COPY: 0xc0,
  DECREF_OBJ: 0xc1,
  DECREF_PEER: 0xc2,
  REPAIR_REPLICA: 0xc5,
  OIDS_EXIST: 0xc6,
  VDI_STATE_CHECKPOINT_CTL: 0xc7,
  INODE_COHERENCE: 0xc8,
  READ_DEL_VDIS: 0xc9,
  GET_RECOVERY: 0xca,
  SET_RECOVERY: 0xcb,
  SET_VNODES: 0xcc,
  GET_VNODES: 0xcd,
  /** Ours: may these ids become other volumes' (wire/sheepdog/recycling.ts)? */
  RECYCLE_VIDS: 0xd2,
  /** Ours: free what ids may be, and tell which may not (wire/sheepdog/recycling.ts). */
  RECYCLE_NOW: 0xd9,
  /** Ours: what the NBD door of the answering node has served (wire/sheepdog/nbd-statistics.ts). */
  NBD_STATISTICS: 0xd0,
  /** Ours: what follows is what an initiator says (wire/sheepdog/iscsi-path.ts). */
  ISCSI_PATH: 0xd7,
  /** Ours: headers of inodes in pages (wire/sheepdog/volume-heads.ts). */
  VOLUME_HEADS: 0xd8,
} as const

const NAMES = new Map<number, string>(Object.entries(Op).map(([name, number]) => [number, name]))

export function opName(opcode: number): string {
  return NAMES.get(opcode) ?? `0x${opcode.toString(16)}`
}

export const Flag = {
  WRITE: 0x01,
  COW: 0x02,
  CACHE: 0x04,
  DIRECT: 0x08,
  PIGGYBACK: 0x10,
  TGT: 0x20,
  FWD: 0x40,
  RECOVERY: 0x80,
  WILDCARD: 0x100,
  /** Ours, with READ_PEER: who compares his copy with this one asks, and does not want to wait while it is compared itself. */
  COMPARES: 0x4000,
} as const

/** Cluster flags (section 5.3). */
export const ClusterFlag = {
  STRICT: 0x01,
  DISKMODE: 0x02,
  AUTO_VNODES: 0x04,
  USE_LOCK: 0x08,
  RECYCLE_VID: 0x10,
  AVOID_DISKFULL: 0x20,
} as const

/** Lock types of LOCK_VDI and RELEASE_VDI. */
export const LockType = {
  NORMAL: 0,
  SHARED: 1,
  /** Ours: held by a block door of this cluster, recorded also where locking was not formatted. */
  DOOR: 2,
} as const
