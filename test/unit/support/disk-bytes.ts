/** Disks for tests of what looks at disks: bytes in memory, and excerpts of real ones in golden/inspect. */
import { readFileSync } from 'node:fs'
import type { DiskView } from '../../../src/inspect/disk.js'
import { SparseBytes } from './sparse-bytes.js'

/** Counts what is asked for, and refuses what a disk could not answer. */
export class TestDisk implements DiskView {
  readonly sizeBytes: number
  readonly bytes: SparseBytes
  readBytes = 0
  reads = 0

  constructor(sizeBytes: number, bytes = new SparseBytes()) {
    this.sizeBytes = sizeBytes
    this.bytes = bytes
  }

  /** Sparse, so that a test may have disks of petabytes. */
  static of(parts: readonly (readonly [number, Uint8Array])[], sizeBytes: number): TestDisk {
    const disk = new TestDisk(sizeBytes)
    for (const [offset, part] of parts) disk.bytes.write(offset, part)
    return disk
  }

  read(offset: number, length: number): Promise<Buffer> {
    const isInside = Number.isSafeInteger(offset) && Number.isSafeInteger(length)
    if (!isInside || offset < 0 || length < 0 || offset + length > this.sizeBytes) {
      return Promise.reject(new Error(`read of ${length} at ${offset}: not on the disk`))
    }
    this.readBytes += length
    this.reads++
    return Promise.resolve(this.bytes.read(offset, length))
  }

  copy(): TestDisk {
    return new TestDisk(this.sizeBytes, this.bytes.copy())
  }
}

/** Bytes that are not zero of a real disk: `size N`, then lines of an offset and 16 bytes, both in hex. */
export interface Excerpt {
  readonly sizeBytes: number
  readonly parts: readonly (readonly [number, Buffer])[]
}

/** How they were made is in test/real/inspect.test.ts, which makes them again with the tools of the day. */
export function excerptOf(name: string): Excerpt {
  const text = readFileSync(`test/unit/golden/inspect/${name}.hex`, 'utf8')
  const [first = '', ...lines] = text.trimEnd().split('\n')
  const parts = lines.map((line): readonly [number, Buffer] => {
    const [at = '', hex = ''] = line.split(' ')
    return [Number.parseInt(at, 16), Buffer.from(hex, 'hex')]
  })
  return { sizeBytes: Number(first.split(' ')[1]), parts }
}

export function goldenDisk(name: string): TestDisk {
  const { sizeBytes, parts } = excerptOf(name)
  return TestDisk.of(parts, sizeBytes)
}

export interface TestPartition {
  readonly number: number
  readonly first: number
  readonly sectors: number
  readonly type?: number
  readonly bootable?: boolean
}

/** A sector with up to four entries; `number` counts from 1. */
export function mbrSector(partitions: readonly TestPartition[], id = 0x1234abcd): Buffer {
  const sector = Buffer.alloc(512)
  sector.writeUInt32LE(id, 440)
  for (const { number, first, sectors, type = 0x83, bootable = false } of partitions) {
    const at = 446 + (number - 1) * 16
    sector[at] = bootable ? 0x80 : 0
    sector[at + 4] = type
    sector.writeUInt32LE(first, at + 8)
    sector.writeUInt32LE(sectors, at + 12)
  }
  sector.writeUInt16LE(0xaa55, 510)
  return sector
}
