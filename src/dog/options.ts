/**
 * Every option of every subcommand: letters, long names and texts of 1.0, and what their values
 * mean.
 */
import { LIMITS } from '../base/limits.js'
import { parseRedundancy, type Redundancy } from '../model/policy.js'
import { Exit, Failure, failed, misused } from './failure.js'

export interface OptionSpec {
  /** Absent: only the long form exists. */
  readonly letter?: string
  /** Also its name in the synopsis when it takes a value. */
  readonly long: string
  readonly valued?: boolean
  /** A newline continues the help on a line of its own. */
  readonly help: string
  /** Value to what the command sees; throws a Failure. Without it: the text itself. */
  readonly parse?: (text: string) => unknown
}

/** What `-s` names: an id, or else a tag. The working VDI is id 0 and an empty tag. */
export interface SnapshotSelector {
  readonly snapId: number
  readonly tag: string
}

export const WORKING: SnapshotSelector = { snapId: 0, tag: '' }

/** Parsed options under commander's names for them; absent when not given. */
export interface DogOptions {
  readonly address?: string
  readonly port?: number
  readonly raw?: boolean
  readonly verbose?: boolean
  readonly time?: boolean
  readonly help?: boolean
  readonly json?: boolean
  readonly prealloc?: boolean
  readonly hyper?: boolean
  readonly force?: boolean
  readonly diff?: boolean
  readonly local?: boolean
  readonly progress?: boolean
  readonly watch?: boolean
  readonly all?: boolean
  readonly strict?: boolean
  readonly lock?: boolean
  readonly recyclevid?: boolean
  readonly fixedvnodes?: boolean
  readonly writeback?: boolean
  readonly delete?: boolean
  readonly exclusive?: boolean
  readonly verify?: boolean
  readonly format?: ImageFormat
  readonly outputFormat?: ImageFormat
  readonly store?: string
  readonly copies?: Redundancy
  readonly snapshot?: SnapshotSelector
  readonly from?: SnapshotSelector
  readonly oid?: bigint
  readonly index?: number
  readonly exist?: boolean
  readonly block_size_shift?: number
  /** False: `--no-share`. */
  readonly share?: boolean
  readonly avoidDiskfull?: boolean
  readonly reduceIdenticalSnapshots?: boolean
  readonly nrBatchedReclamation?: number
  /** Seconds. */
  readonly reclamationInterval?: number
  readonly maxReclaim?: number
  readonly server?: string
  readonly connections?: number
  readonly readOnly?: boolean
  /** Seconds. */
  readonly timeout?: number
  readonly persist?: boolean
  readonly foreground?: boolean
  readonly ioctl?: boolean
  readonly front?: string
  readonly tlsCertificates?: string
  readonly tlsPsk?: string
  readonly tlsUser?: string
  readonly tlsHostname?: string
}

export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (port < 1 || port > 65535) throw new Failure(Exit.usage, [`Invalid port number '${text}'`])
  return port
}

function parseCopies(text: string): Redundancy {
  const redundancy = parseRedundancy(text)
  if (redundancy !== undefined) return redundancy
  throw failed(
    `Invalid parameter ${text}`,
    'To create replicated vdi, set -c x',
    `  x(1 to ${LIMITS.copiesMax})   - number of replicated copies`,
    'To create erasure coded vdi, set -c x:y',
    '  x(2,4,8,16)  - number of data strips',
    '  y(1 to 15)   - number of parity strips',
  )
}

/** Of files disks are exported to and imported from. */
export type ImageFormat = 'raw' | 'qcow2'

function parseFormat(text: string): ImageFormat {
  if (text === 'raw' || text === 'qcow2') return text
  throw misused(`Unknown format '${text}': there are raw and qcow2`)
}

export function parseSnapshot(text: string): SnapshotSelector {
  if (!/^\d+$/.test(text)) return { snapId: 0, tag: text }
  const snapId = Number(text)
  if (snapId === 0) throw failed('The snapshot id must be larger than zero')
  if (snapId > 0xffffffff) throw failed('The snapshot id is too large')
  return { snapId, tag: '' }
}

function parseShift(text: string): number {
  const shift = /^\d+$/.test(text) ? Number(text) : 0
  if (shift < LIMITS.blockSizeShiftMin) {
    throw failed('Object Size is larger than 2^20. Please set shift bit larger than 20')
  }
  if (shift > LIMITS.blockSizeShiftMax) {
    throw failed('Object Size is limited to 2^31. Please set shift bit lower than 31')
  }
  return shift
}

/** May be more than any volume has: the commands say so. */
function parseIndex(text: string): number {
  if (/^(\d+|0x[0-9a-f]+)$/i.test(text)) return Number(text)
  throw failed('The index must be a decimal integer or a hexadecimal integer started with 0x')
}

function parseOid(text: string): bigint {
  if (!/^(0x)?[0-9a-f]{1,16}$/i.test(text)) throw failed('object id must be a hex integer')
  return BigInt(`0x${text.replace(/^0x/i, '')}`)
}

function parseTag(text: string): SnapshotSelector {
  const selector = parseSnapshot(text)
  if (selector.snapId === 0) return selector
  throw misused('Please specify a non-integer value for a snapshot tag name')
}

/**
 * A positive number called `what` in the complaints (which run two words together, as 1.0's do).
 */
function parseCount(what: string): (text: string) => number {
  return (text) => {
    if (!/^-?\d+$/.test(text)) throw failed(`The ${what} is invalid: ${text}`)
    const value = Number(text)
    if (value < 1 || value > 0xffffffff) throw failed(`The ${what} must bepositive integer`)
    return value
  }
}

const address: OptionSpec = {
  letter: 'a',
  long: 'address',
  valued: true,
  help: 'specify the daemon address (default: localhost)',
}
const port: OptionSpec = {
  letter: 'p',
  long: 'port',
  valued: true,
  help: 'specify the daemon port',
  parse: parsePort,
}
const help: OptionSpec = { letter: 'h', long: 'help', help: 'display this help and exit' }
const time: OptionSpec = { letter: 'T', long: 'time', help: 'show elapsed time' }
const raw: OptionSpec = {
  letter: 'r',
  long: 'raw',
  help:
    'raw output mode: omit headers, separate fields with\n' +
    'single spaces and print all sizes in decimal bytes',
}
const verbose: OptionSpec = {
  letter: 'v',
  long: 'verbose',
  help: 'print more information than default',
}
/** Ours, not 1.0's: last in every list, so that the rest of the help stays as it was. */
const json: OptionSpec = { long: 'json', help: 'print the result as JSON' }

/** Options of `dog node`. */
export const nodeOption = {
  address,
  port,
  raw,
  help,
  time,
  json,
  local: { letter: 'l', long: 'local', help: 'issue request to local node' },
  watch: { letter: 'w', long: 'watch', help: 'watch the stat every second' },
  progress: { letter: 'P', long: 'progress', help: 'show progress of recovery in the node' },
  all: { letter: 'A', long: 'all', help: 'show md information of all the nodes' },
  force: { letter: 'f', long: 'force', help: 'ignore the confirmation' },
} as const satisfies Record<string, OptionSpec>

/** Options of `dog cluster`. */
export const clusterOption = {
  address,
  port,
  raw,
  help,
  verbose,
  time,
  json,
  diff: {
    letter: 'd',
    long: 'diff',
    help: 'just output the changes between the two adjacent epochesfor cluster info',
  },
  store: { letter: 'b', long: 'store', valued: true, help: 'specify backend store' },
  copies: {
    letter: 'c',
    long: 'copies',
    valued: true,
    help: 'specify the default data redundancy (number of copies)',
    parse: parseCopies,
  },
  lock: { letter: 'l', long: 'lock', help: 'Lock vdi to exclude multiple users' },
  strict: {
    letter: 't',
    long: 'strict',
    help: 'do not serve write request if number of nodes is not sufficient',
  },
  shift: {
    letter: 'z',
    long: 'block_size_shift',
    valued: true,
    help: 'specify the shift num of default data object size',
    parse: parseShift,
  },
  fixedVnodes: {
    letter: 'V',
    long: 'fixedvnodes',
    help: 'disable automatic vnodes calculation',
  },
  recycleVid: { letter: 'R', long: 'recyclevid', help: 'enable recycling of VID' },
  force: { letter: 'f', long: 'force', help: 'do not prompt for confirmation' },
  avoidDiskfull: {
    letter: 'F',
    long: 'avoid-diskfull',
    help: 'skip recovery if recovery process can cause disk full',
  },
} as const satisfies Record<string, OptionSpec>

const snapshotHelp = {
  letter: 's',
  long: 'snapshot',
  valued: true,
  help: 'specify a snapshot id or tag name',
} as const

/** Options of `dog vdi`. */
export const vdiOption = {
  address,
  port,
  raw,
  help,
  verbose,
  time,
  json,
  prealloc: { letter: 'P', long: 'prealloc', help: 'preallocate all the data objects' },
  hyper: { letter: 'y', long: 'hyper', help: 'create a hyper volume' },
  copies: {
    letter: 'c',
    long: 'copies',
    valued: true,
    help: 'specify the data redundancy level',
    parse: parseCopies,
  },
  shift: {
    letter: 'z',
    long: 'block_size_shift',
    valued: true,
    help: 'specify the bit shift num for data object size',
    parse: parseShift,
  },
  snapshot: { ...snapshotHelp, parse: parseSnapshot },
  exist: {
    letter: 'e',
    long: 'exist',
    help: 'only check objects exist or not,\nneither comparing nor repairing',
  },
  from: {
    letter: 'F',
    long: 'from',
    valued: true,
    help: 'create a differential backup from the snapshot',
    parse: parseSnapshot,
  },
  newTag: { ...snapshotHelp, parse: parseTag },
  reduceIdentical: {
    letter: 'R',
    long: 'reduce-identical-snapshots',
    help: "do not create snapshot if working VDI doesn't have its own objects",
  },
  noShare: { letter: 'n', long: 'no-share', help: 'share nothing with its parent' },
  force: { letter: 'f', long: 'force', help: 'do operation forcibly' },
  oid: {
    letter: 'o',
    long: 'oid',
    valued: true,
    help: 'specify the object id of the tracking object',
    parse: parseOid,
  },
  index: {
    letter: 'i',
    long: 'index',
    valued: true,
    help: 'specify the index of data objects',
    parse: parseIndex,
  },
  format: {
    letter: 'f',
    long: 'format',
    valued: true,
    help: 'format of the file: raw (default) or qcow2',
    parse: parseFormat,
  },
  outputFormat: {
    letter: 'O',
    long: 'output-format',
    valued: true,
    help: 'format of the file: raw (default) or qcow2',
    parse: parseFormat,
  },
  replace: { long: 'force', help: 'replace what is there' },
  verify: { long: 'verify', help: 'compare both afterwards' },
  deleteKey: { letter: 'd', long: 'delete', help: 'delete a key' },
  exclusive: { letter: 'x', long: 'exclusive', help: 'write in an exclusive mode' },
  writeback: { letter: 'w', long: 'writeback', help: 'use writeback mode' },
  batch: {
    letter: 'B',
    long: 'nr-batched-reclamation',
    valued: true,
    help: 'specify a number of batchedreclamation during VDI deletion',
    parse: parseCount('number of batched reclamation'),
  },
  interval: {
    letter: 'I',
    long: 'reclamation-interval',
    valued: true,
    help: 'specify how long (unit: second)in reclamation loop during VDI deletion',
    parse: parseCount('interval of batched reclamation'),
  },
  maxReclaim: {
    letter: 'm',
    long: 'max-reclaim',
    valued: true,
    help:
      'specify the maximum number of reclaimed objects ' +
      "(if this option is specified, an inode object won't be reclaimed)",
    parse: parseCount('maximum number of reclamation'),
  },
} as const satisfies Record<string, OptionSpec>
