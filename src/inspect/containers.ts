/** What is no file system: swap space, encrypted disks, members of volume groups and arrays, images inside the image. */
import { crc32From } from '../base/crc32.js'
import type { Content, Prober } from './content.js'
import { type DiskView, readWithin, safe, textOf, uuidText } from './disk.js'

const SWAP_PAGES = [4096, 8192, 16384, 65536] as const
/** Memory that waits to be resumed stands in the place of swap space. */
const SUSPENDED = ['S1SUSPEND', 'S2SUSPEND', 'ULSUSPEND', 'LINHIB0001']

/** Linux, include/linux/swap.h: the signature ends the first page, the header begins at 1024. */
export const swap: Prober = {
  type: 'swap',
  probe(head) {
    for (const page of SWAP_PAGES) {
      if (head.length < page) return undefined
      const signature = head.toString('latin1', page - 10, page)
      const suspended = SUSPENDED.some((one) => signature.startsWith(one))
      if (signature !== 'SWAPSPACE2' && !suspended) continue
      const isLittle = head.readUInt32LE(1024) === 1
      const lastPage = isLittle ? head.readUInt32LE(1028) : head.readUInt32BE(1028)
      return {
        type: suspended ? 'swsuspend' : 'swap',
        label: textOf(head.subarray(1052, 1068)),
        uuid: uuidText(head.subarray(1036, 1052)),
        blockBytes: page,
        sizeBytes: (lastPage + 1) * page,
        details: suspended ? ['a suspended system waits in it'] : [],
      }
    }
    return undefined
  },
}

const LUKS_MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1')
const SECTOR_BYTES = 512

/** LUKS 1 and 2 (cryptsetup, docs/on-disk-format.pdf and on-disk-format-luks2.pdf). */
export const luks: Prober = {
  type: 'crypto_LUKS',
  probe(head, disk) {
    if (head.length < 4096 || !head.subarray(0, 6).equals(LUKS_MAGIC)) return undefined
    const version = head.readUInt16BE(6)
    if (version !== 1 && version !== 2) return undefined
    const isFirst = version === 1
    const cipher = `${textOf(head.subarray(8, 40))}-${textOf(head.subarray(40, 72))}`
    const payload = isFirst ? head.readUInt32BE(104) * SECTOR_BYTES : undefined
    const content: Content = {
      type: 'crypto_LUKS',
      version: String(version),
      label: isFirst ? '' : textOf(head.subarray(24, 72)),
      uuid: textOf(head.subarray(168, 208)),
      sizeBytes: payload === undefined ? undefined : Math.max(0, disk.sizeBytes - payload),
      details: isFirst ? [cipher] : [],
    }
    return content
  },
}

const QCOW_MAGIC = Buffer.from('QFI\xfb', 'latin1')
const BACKING_NAME_MAX = 1023

/** A disk image within the disk (QEMU, docs/interop/qcow2.txt). */
export const qcow2: Prober = {
  type: 'qcow2',
  async probe(head, disk) {
    if (head.length < 104 || !head.subarray(0, 4).equals(QCOW_MAGIC)) return undefined
    const version = head.readUInt32BE(4)
    if (version < 2 || version > 3) return undefined
    const clusterBits = head.readUInt32BE(20)
    const content: Content = {
      type: 'qcow2',
      version: String(version),
      sizeBytes: safe(head.readBigUInt64BE(24)),
      blockBytes: clusterBits >= 9 && clusterBits <= 21 ? 2 ** clusterBits : undefined,
      details: [
        ...(await backingOf(head, disk)),
        ...(head.readUInt32BE(32) === 0 ? [] : ['encrypted']),
      ],
    }
    return content
  },
}

async function backingOf(head: Buffer, disk: DiskView): Promise<string[]> {
  const at = safe(head.readBigUInt64BE(8))
  const length = head.readUInt32BE(16)
  if (at === undefined || at === 0 || length > BACKING_NAME_MAX) return []
  const name = await readWithin(disk, at, length)
  return name === undefined ? [] : [`backed by ${textOf(name)}`]
}

const LABEL = Buffer.from('LABELONE')
const LVM_TYPE = 'LVM2 001'
const LVM_CRC_START = 0xf597a6cf
const LVM_SECTORS = 4
const LVM_MAGIC = Buffer.from(' LVM2 x[5A%r0N*>', 'latin1')
/** Of a volume group's description, whose first word is its name. */
const VG_NAME_MAX = 128
const AREAS_MAX = 16

/** A physical volume of LVM2 (lvm2, lib/format_text/layout.h): a label in one of the first sectors, and its metadata area. */
export const lvm: Prober = {
  type: 'LVM2_member',
  async probe(head, disk) {
    for (let sector = 0; sector < LVM_SECTORS; sector++) {
      const label = head.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
      if (label.length < SECTOR_BYTES || !label.subarray(0, 8).equals(LABEL)) continue
      if (label.toString('latin1', 24, 32) !== LVM_TYPE) continue
      const at = label.readUInt32LE(20)
      if (at < 32 || at + 40 > SECTOR_BYTES) continue
      const isIntact = crc32From(LVM_CRC_START, label.subarray(20)) === label.readUInt32LE(16)
      const group = await groupOf(disk, label.subarray(at))
      return {
        type: 'LVM2_member',
        version: LVM_TYPE,
        uuid: lvmUuid(label.toString('latin1', at, at + 32)),
        sizeBytes: safe(label.readBigUInt64LE(at + 32)),
        details: group === undefined ? [] : [`volume group ${group}`],
        problems: isIntact ? [] : ["its label's checksum is wrong"],
      }
    }
    return undefined
  },
}

function lvmUuid(letters: string): string {
  return letters.replace(/^(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})$/, '$1-$2-$3-$4-$5-$6-$7')
}

/** `header`: the physical volume's, behind which stand its data areas, a zero, and its metadata areas. */
async function groupOf(disk: DiskView, header: Buffer): Promise<string | undefined> {
  let at = 40
  for (let i = 0; i < AREAS_MAX && at + 16 <= header.length; i++, at += 16) {
    if (header.readBigUInt64LE(at) === 0n && header.readBigUInt64LE(at + 8) === 0n) break
  }
  if (at + 32 > header.length) return undefined
  const area = safe(header.readBigUInt64LE(at + 16))
  if (area === undefined || area === 0) return undefined
  const head = await readWithin(disk, area, SECTOR_BYTES)
  if (head === undefined || !head.subarray(4, 20).equals(LVM_MAGIC)) return undefined
  const [textAt, textBytes] = [safe(head.readBigUInt64LE(40)), safe(head.readBigUInt64LE(48))]
  if (textAt === undefined || textBytes === undefined || textAt === 0 || textBytes < 3)
    return undefined
  const text = await readWithin(disk, area + textAt, Math.min(textBytes, VG_NAME_MAX + 2))
  return text === undefined ? undefined : /^([\w.+-]{1,128}) \{/.exec(text.toString('latin1'))?.[1]
}

const RAID_MAGIC = 0xa92b4efc
const RAID_PLACES = [0, 4096] as const

/** A member of a Linux software array with its superblock in front (version 1.1 and 1.2). */
export const raid: Prober = {
  type: 'linux_raid_member',
  probe(head) {
    for (const at of RAID_PLACES) {
      if (head.length < at + 256 || head.readUInt32LE(at) !== RAID_MAGIC) continue
      if (head.readUInt32LE(at + 4) !== 1) continue
      const [level, members] = [head.readInt32LE(at + 72), head.readUInt32LE(at + 92)]
      return {
        type: 'linux_raid_member',
        version: at === 0 ? '1.1' : '1.2',
        label: textOf(head.subarray(at + 32, at + 64)),
        uuid: uuidText(head.subarray(at + 16, at + 32)),
        details: [`level ${level} of ${members} disks`],
      }
    }
    return undefined
  },
}
