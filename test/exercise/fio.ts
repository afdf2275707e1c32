/** fio with verification on a file: each block is written with a checksum and its place, and read back while the next are written. */
import { truncate } from 'node:fs/promises'
import { run } from '../real/support/run.js'

const BLOCK_BYTES = 4096
/** Of one round over the file. */
const BLOCKS = 1 << 18
const DEPTH = 16
/** Blocks written before they are read back. */
const BACKLOG = 1024
const TIMEOUT_MS = 3_600_000

interface Side {
  readonly total_ios: number
  readonly bw_bytes: number
}

/** Rejects with fio's words at the first wrong block. Resolves with a sentence of what was done. */
export async function verifyByFio(
  path: string,
  { seed, operations }: { readonly seed: number; readonly operations: number },
): Promise<string> {
  // Each block is a write and a read.
  const blocks = Math.min(BLOCKS, Math.ceil(operations / 2))
  const loops = Math.ceil(operations / (2 * blocks))
  await truncate(path, blocks * BLOCK_BYTES)
  const { stdout } = await run(
    [
      ...['fio', '--name=verify', `--filename=${path}`, '--ioengine=libaio', '--direct=1'],
      ...['--rw=randwrite', `--bs=${BLOCK_BYTES}`, `--iodepth=${DEPTH}`],
      ...[`--size=${blocks * BLOCK_BYTES}`, `--loops=${loops}`, `--randseed=${seed}`],
      ...['--verify=crc32c', '--verify_fatal=1', `--verify_backlog=${BACKLOG}`],
      ...['--end_fsync=1', '--verify_dump=0', '--verify_state_save=0', '--output-format=json'],
    ],
    { timeoutMs: TIMEOUT_MS },
  )
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
    readonly jobs: readonly { readonly error: number; readonly read: Side; readonly write: Side }[]
  }
  const job = report.jobs[0]
  if (job === undefined || job.error !== 0) throw new Error(`fio failed:\n${stdout}`)
  return `fio, seed ${seed}: ${job.write.total_ios} writes, ${job.read.total_ios} reads, all as written`
}
