/** Files to copy through volumes: reproducible bytes with holes, and exact comparison. */
import { createCipheriv } from 'node:crypto'
import { open, truncate, writeFile } from 'node:fs/promises'
import { run } from './run.js'

const MIB = 1024 * 1024
const ZEROS = Buffer.alloc(MIB)

/** `length` reproducible bytes that no other seed gives. */
export function patternBytes(seed: number, length: number): Buffer {
  const key = Buffer.alloc(16)
  key.writeUInt32LE(seed)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  return cipher.update(length === MIB ? ZEROS : Buffer.alloc(length))
}

/** An image of `mebibytes`: every fourth MiB a hole, every eighth written zeros, the rest noise. */
export async function makeImage(path: string, mebibytes: number, seed: number): Promise<void> {
  await writeFile(path, '')
  await truncate(path, mebibytes * MIB)
  const file = await open(path, 'r+')
  try {
    for (let i = 0; i < mebibytes; i++) {
      if (i % 4 === 3) continue
      const data = i % 8 === 2 ? ZEROS : patternBytes(seed + i, MIB)
      await file.write(data, 0, MIB, i * MIB)
    }
  } finally {
    await file.close()
  }
}

/** Throws, with the first difference, unless both files hold the same bytes. */
export async function sameFiles(one: string, other: string): Promise<void> {
  await run(['cmp', one, other])
}
