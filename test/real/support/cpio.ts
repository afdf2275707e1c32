/** The archive a kernel takes as its first file system: cpio, "newc" format (man 5 cpio). */

export type CpioEntry =
  | { readonly name: string; readonly kind: 'directory' }
  | { readonly name: string; readonly kind: 'file'; readonly data: Buffer; readonly mode: number }
  | { readonly name: string; readonly kind: 'link'; readonly to: string }

const DIRECTORY = 0o040755
const REGULAR = 0o100000
const SYMLINK = 0o120777

/** Names are relative, parents come before their children. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const pieces = entries.flatMap((entry, i) => record(entry.name, modeOf(entry), bytesOf(entry), i))
  return Buffer.concat([...pieces, ...record('TRAILER!!!', 0, Buffer.alloc(0), 0)])
}

function modeOf(entry: CpioEntry): number {
  if (entry.kind === 'directory') return DIRECTORY
  return entry.kind === 'link' ? SYMLINK : REGULAR | entry.mode
}

function bytesOf(entry: CpioEntry): Buffer {
  if (entry.kind === 'directory') return Buffer.alloc(0)
  return entry.kind === 'link' ? Buffer.from(entry.to) : entry.data
}

/** Header of 13 hexadecimal fields, name, data; name and data each end on a multiple of four. */
function record(name: string, mode: number, data: Buffer, index: number): Buffer[] {
  const path = Buffer.from(`${name}\0`)
  const [inode, links] = [index + 1, 1]
  const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, path.length, 0]
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`
  return [
    Buffer.from(header),
    path,
    padding(header.length + path.length),
    data,
    padding(data.length),
  ]
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4)
}
