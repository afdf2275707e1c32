/** The NBD clients people use, each call a check in itself: they throw with the client's whole output. */
import { type RunResult, run } from './run.js'

const LONG_MS = 300_000

/** Runs qemu-io commands on a raw volume; a pattern that does not match is an error of qemu-io's. */
export function qemuIo(uri: string, commands: readonly string[], cache = 'writeback') {
  const words = commands.flatMap((command) => ['-c', command])
  return run(['qemu-io', '-f', 'raw', '-t', cache, ...words, uri], { timeoutMs: LONG_MS })
}

export function nbdcopy(from: string, to: string, ...options: readonly string[]) {
  return run(['nbdcopy', '--flush', ...options, from, to], { timeoutMs: LONG_MS })
}

/** A paced copy in: it lasts `mebibytes / mebibytesPerSecond`, so that things can happen meanwhile. */
export function nbdcopyPaced(file: string, to: string, mebibytesPerSecond: number) {
  const rate = `rate=${mebibytesPerSecond * 8}M`
  const source = ['--', '[', 'nbdkit', '-r', '--filter=rate', 'file', file, rate, ']']
  return run(['nbdcopy', '--flush', ...source, to], { timeoutMs: LONG_MS })
}

export function qemuImg(...words: readonly string[]): Promise<RunResult> {
  return run(['qemu-img', ...words], { timeoutMs: LONG_MS })
}

interface ExportFacts {
  readonly 'export-name': string
  readonly 'export-size': number
  readonly is_read_only: boolean
  readonly can_flush: boolean
  readonly can_fua: boolean
  readonly can_trim: boolean
  readonly can_zero: boolean
  readonly can_multi_conn: boolean
  readonly can_df: boolean
  readonly contexts?: readonly string[]
}

export async function nbdinfo(uri: string): Promise<ExportFacts> {
  const { stdout } = await run(['nbdinfo', '--json', uri])
  const found = (JSON.parse(stdout) as { exports: ExportFacts[] }).exports[0]
  if (found === undefined) throw new Error(`nbdinfo found no export at ${uri}`)
  return found
}

/** Names of all exports, sorted. */
export async function nbdList(server: string): Promise<string[]> {
  const { stdout } = await run(['nbdinfo', '--json', '--list', server])
  const { exports } = JSON.parse(stdout) as { exports: ExportFacts[] }
  return exports.map((each) => each['export-name']).sort()
}

export interface MapEntry {
  readonly offset: number
  readonly length: number
  /** The context's value; of base:allocation 1 is a hole, 2 reads as zeros. */
  readonly type: number
}

export async function nbdMap(uri: string, context = 'base:allocation'): Promise<MapEntry[]> {
  const { stdout } = await run(['nbdinfo', `--map=${context}`, '--json', uri])
  return JSON.parse(stdout) as MapEntry[]
}

export interface FioVerify {
  readonly mebibytes: number
  readonly seed: number
  /**
   * crc32c: each 512 bytes carry their own checksum, as fio does it by default; it cannot tell an old block
   * from a new one. pattern: every byte is known, of its offset and the seed, so lost writes show too.
   */
  readonly by: 'crc32c' | 'pattern'
  /** Reads back what an earlier run with the same seed wrote, writing nothing. */
  readonly verifyOnly?: boolean
}

/** Writes every block once in random order and mixed sizes, 16 deep, then reads and checks them all. */
export function fioVerify(uri: string, how: FioVerify): Promise<RunResult> {
  const pattern = `--verify_pattern=0x${how.seed.toString(16).padStart(8, '0')}%o`
  const command = [
    ...['fio', '--name=verify', '--thread', '--ioengine=nbd', `--uri=${uri}`, '--iodepth=16'],
    ...['--rw=randwrite', `--size=${how.mebibytes}M`, `--randseed=${how.seed}`, '--end_fsync=1'],
    '--bssplit=512/15:1536/10:4k/30:16k/15:64k/15:256k/10:1M/5',
    ...[`--verify=${how.by}`, '--do_verify=1', '--verify_fatal=1'],
    // fio must leave no files of its own in the current directory.
    ...['--verify_dump=0', '--verify_state_save=0'],
  ]
  if (how.by === 'pattern') command.push(pattern)
  if (how.verifyOnly === true) command.push('--verify_only=1')
  return run(command, { timeoutMs: LONG_MS })
}

/** As many connections as `jobs`, each with a stretch of its own, which it writes and then verifies. */
export function fioParallel(
  uri: string,
  { jobs, mebibytesEach }: { readonly jobs: number; readonly mebibytesEach: number },
): Promise<RunResult> {
  const command = [
    ...['fio', '--name=parallel', '--thread', '--ioengine=nbd', `--uri=${uri}`, '--iodepth=8'],
    ...[`--numjobs=${jobs}`, `--size=${mebibytesEach}M`, `--offset_increment=${mebibytesEach}M`],
    ...['--rw=randwrite', '--bssplit=4k/60:64k/40', '--end_fsync=1', '--group_reporting'],
    ...['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_state_save=0'],
  ]
  return run(command, { timeoutMs: LONG_MS })
}
