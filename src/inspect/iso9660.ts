/** ISO 9660 (ECMA-119): volume descriptors from 32 KiB on, one every 2 KiB. A Joliet one has the better label. */
import type { Content, Prober } from './content.js'
import { textOf, wideTextOf } from './disk.js'

const AT = 32 * 1024
const DESCRIPTOR_BYTES = 2048
const NAME = 'CD001'
const PRIMARY = 1
const SUPPLEMENTARY = 2
const END = 255
const JOLIET = ['%/@', '%/C', '%/E']

export const iso9660: Prober = {
  type: 'iso9660',
  probe(head) {
    const primary = descriptorOf(head, (type) => type === PRIMARY)
    if (primary === undefined) return undefined
    const joliet = descriptorOf(
      head,
      (type, one) => type === SUPPLEMENTARY && JOLIET.includes(one.toString('latin1', 88, 91)),
    )
    const blockBytes = primary.readUInt16LE(128)
    const sizeBytes = primary.readUInt32LE(80) * blockBytes
    const label = textOf(primary.subarray(40, 72))
    const wide = joliet === undefined ? '' : wideTextOf(joliet.subarray(40, 72), 'big')
    // Joliet has room for half as many letters: where that cuts it, the plain one is whole.
    const isCut = wide.length === 16 && label.length > 16
    const content: Content = {
      type: 'iso9660',
      ...(joliet === undefined ? {} : { version: 'Joliet' }),
      label: wide === '' || isCut ? label : wide,
      uuid: dateOf(primary.subarray(830, 847)) ?? dateOf(primary.subarray(813, 830)),
      blockBytes,
      sizeBytes,
      usedBytes: sizeBytes,
      freeBytes: 0,
    }
    return content
  },
}

/** As far as `head` reaches. */
function descriptorOf(
  head: Buffer,
  isMeant: (type: number, descriptor: Buffer) => boolean,
): Buffer | undefined {
  for (let at = AT; at + DESCRIPTOR_BYTES <= head.length; at += DESCRIPTOR_BYTES) {
    const descriptor = head.subarray(at, at + DESCRIPTOR_BYTES)
    if (descriptor.toString('latin1', 1, 6) !== NAME || descriptor[0] === END) return undefined
    if (isMeant(descriptor[0]!, descriptor)) return descriptor
  }
  return undefined
}

/** What blkid calls its UUID: the time of its last change, `2026-11-21-22-52-00-00`. */
function dateOf(field: Buffer): string | undefined {
  const digits = field.toString('latin1', 0, 16)
  if (!/^\d{16}$/.test(digits) || /^0+$/.test(digits)) return undefined
  return digits.replace(/^(....)(..)(..)(..)(..)(..)(..)$/, '$1-$2-$3-$4-$5-$6-$7')
}
