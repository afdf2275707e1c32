/** Object ids (objects spec, section 1): what kind of thing, of which VDI, with which index. */
import type { Brand } from '../base/brand.js'

export type Oid = Brand<bigint, 'oid'>
/** One fragment of an erasure-coded object: its index, counted from 1, above the 64 bits of the object's id. */
export type FragmentId = Brand<bigint, 'fragment'>
/** What one node stores of an object: a replica goes by the object's id, a fragment by its own. */
export type StoredId = Oid | FragmentId
/** Volume id, 1..0xffffff. */
export type Vid = Brand<number, 'vid'>

export const VID_LIMIT = 1 << 24

const VDI_BIT = 1n << 63n
const VMSTATE_BIT = 1n << 62n
const ATTR_BIT = 1n << 61n
const BTREE_BIT = 1n << 60n
const LEDGER_BIT = 1n << 59n
const KIND_BITS = VDI_BIT | VMSTATE_BIT | ATTR_BIT | BTREE_BIT | LEDGER_BIT

const FRAGMENT_SHIFT = 64n

export function fragmentId(oid: Oid, index: number): FragmentId {
  return (oid | (BigInt(index + 1) << FRAGMENT_SHIFT)) as FragmentId
}

/** The object a replica or fragment is of. */
export function objectOf(id: StoredId): Oid {
  return BigInt.asUintN(64, id) as Oid
}

export function isFragment(id: StoredId): id is FragmentId {
  return id >> FRAGMENT_SHIFT !== 0n
}

/** Index of a fragment, -1 for a replica. */
export function fragmentOf(id: StoredId): number {
  return Number(id >> FRAGMENT_SHIFT) - 1
}

export type OidKind = 'inode' | 'vmstate' | 'attribute' | 'btree' | 'ledger' | 'data'

export function asVid(value: number): Vid {
  return (value & (VID_LIMIT - 1)) as Vid
}

export function inodeOid(vid: Vid): Oid {
  return (VDI_BIT | (BigInt(vid) << 32n)) as Oid
}

export function dataOid(vid: Vid, index: number): Oid {
  return ((BigInt(vid) << 32n) | BigInt(index)) as Oid
}

/** A leaf of a hypervolume's index. */
export function btreeOid(vid: Vid, leaf: number): Oid {
  return (BTREE_BIT | (BigInt(vid) << 32n) | BigInt(leaf)) as Oid
}

/** `name`: the hash of the volume's name, whatever id the volume has. */
export function attributeOid(name: Vid, slot: number): Oid {
  return (ATTR_BIT | (BigInt(name) << 32n) | BigInt(slot)) as Oid
}

export function vmstateOid(vid: Vid, index: number): Oid {
  return (VMSTATE_BIT | (BigInt(vid) << 32n) | BigInt(index)) as Oid
}

/** The reference ledger of a data object. */
export function ledgerOid(data: Oid): Oid {
  return (data | LEDGER_BIT) as Oid
}

/** The data object a ledger counts for. */
export function ledgerTarget(ledger: Oid): Oid {
  return (ledger & ~LEDGER_BIT) as Oid
}

export function oidKind(oid: StoredId): OidKind {
  if ((oid & KIND_BITS) === 0n) return 'data'
  if ((oid & VDI_BIT) !== 0n) return 'inode'
  if ((oid & VMSTATE_BIT) !== 0n) return 'vmstate'
  if ((oid & ATTR_BIT) !== 0n) return 'attribute'
  return (oid & BTREE_BIT) !== 0n ? 'btree' : 'ledger'
}

export function oidVid(oid: StoredId): Vid {
  return asVid(Number((oid >> 32n) & 0xffffffn))
}

export function oidIndex(oid: Oid): number {
  return Number(oid & 0xffffffffn)
}

/** 16 hex digits, and for a fragment its index, as in file names. */
export function oidName(id: StoredId): string {
  const fragment = fragmentOf(id)
  const name = objectOf(id).toString(16).padStart(16, '0')
  return fragment < 0 ? name : `${name}_${fragment}`
}

export function vidName(vid: number): string {
  return vid.toString(16)
}

export const INODE_BYTES = 12587576
export const ATTRIBUTE_BYTES = 66320
export const BTREE_BYTES = 4194304
export const LEDGER_BYTES = 4194304

/** Size of an object as a whole. `blockSizeShift` is the volume's. */
export function objectBytes(oid: StoredId, blockSizeShift: number): number {
  switch (oidKind(oid)) {
    case 'inode':
      return INODE_BYTES
    case 'attribute':
      return ATTRIBUTE_BYTES
    case 'btree':
      return BTREE_BYTES
    case 'ledger':
      return LEDGER_BYTES
    case 'vmstate':
    case 'data':
      return 2 ** blockSizeShift
  }
}
