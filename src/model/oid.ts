/** Object ids (objects spec, section 1): what kind of thing, of which VDI, with which index. */
import type { Brand } from '../base/brand.js'

export type Oid = Brand<bigint, 'oid'>
/** Volume id, 1..0xffffff. */
export type Vid = Brand<number, 'vid'>

export const VID_LIMIT = 1 << 24

const VDI_BIT = 1n << 63n
const VMSTATE_BIT = 1n << 62n
const ATTR_BIT = 1n << 61n
const BTREE_BIT = 1n << 60n
const LEDGER_BIT = 1n << 59n
const KIND_BITS = VDI_BIT | VMSTATE_BIT | ATTR_BIT | BTREE_BIT | LEDGER_BIT

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

/** The reference ledger of a data object. */
export function ledgerOid(data: Oid): Oid {
  return (data | LEDGER_BIT) as Oid
}

/** The data object a ledger counts for. */
export function ledgerTarget(ledger: Oid): Oid {
  return (ledger & ~LEDGER_BIT) as Oid
}

export function oidKind(oid: Oid): OidKind {
  if ((oid & KIND_BITS) === 0n) return 'data'
  if ((oid & VDI_BIT) !== 0n) return 'inode'
  if ((oid & VMSTATE_BIT) !== 0n) return 'vmstate'
  if ((oid & ATTR_BIT) !== 0n) return 'attribute'
  return (oid & BTREE_BIT) !== 0n ? 'btree' : 'ledger'
}

export function oidVid(oid: Oid): Vid {
  return asVid(Number((oid >> 32n) & 0xffffffn))
}

export function oidIndex(oid: Oid): number {
  return Number(oid & 0xffffffffn)
}

/** 16 hex digits, as in file names. */
export function oidName(oid: Oid): string {
  return oid.toString(16).padStart(16, '0')
}

export function vidName(vid: number): string {
  return vid.toString(16)
}

export const INODE_BYTES = 12587576
export const ATTRIBUTE_BYTES = 66320
export const BTREE_BYTES = 4194304
export const LEDGER_BYTES = 4194304

/** Size of an object as a whole. `blockSizeShift` is the volume's. */
export function objectBytes(oid: Oid, blockSizeShift: number): number {
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
