/**
 * The command line of `sheepfs`: sheepdog 1.0's (sheepfs spec, section 1), and what mount(8), fstab and systemd's mount units give
 * a helper: `sheepfs HOST:PORT MOUNTPOINT -o OPTIONS`.
 */
import { resolve } from 'node:path'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import type { MountOptions } from '../world/node/fuse.js'

const HOST_DEFAULT = '127.0.0.1'
const PORT_DEFAULT = 7000

export interface SheepfsOptions {
  readonly mountPoint: string
  readonly host: string
  readonly port: number
  readonly foreground: boolean
  readonly debug: boolean
  readonly pageCache: boolean
  readonly readOnly: boolean
  readonly allowOther: boolean
  readonly defaultPermissions: boolean
  readonly flags: MountOptions['flags']
  /** Undefined: who runs it. */
  readonly uid: number | undefined
  readonly gid: number | undefined
  /** How long I/O waits for a sheep; undefined: as long as it takes. */
  readonly patienceMs: number | undefined
}

export type Parsed =
  | { readonly kind: 'run'; readonly options: SheepfsOptions }
  | { readonly kind: 'exit'; readonly status: number }

/** Of mount(8) and fstab(5): nothing a file system has to do with. */
const NOT_OURS =
  /^(rw|defaults|auto|noauto|user|users|nouser|owner|group|_netdev|nofail|dev|suid|exec|async|atime|relatime|x-.*|comment=.*)$/
const FLAGS = ['nosuid', 'nodev', 'noexec', 'noatime', 'sync'] as const

const MOUNT_OPTIONS_HELP = `
Mount options (-o):
  ro                    nothing can be changed
  allow_other           other users may look in, as modes and owners say (default_permissions)
  uid=N,gid=N           owner of all files
  io_timeout=SECONDS    I/O fails when no sheep answers for so long (default: it waits)
  pagecache             as -k
  nosuid,nodev,noexec,noatime,sync   as everywhere; what fstab has beside is accepted

Unmount with: fusermount3 -u MOUNTPOINT (or umount)`

function wholeNumber(what: string, least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= least && value <= most) return value
    throw new InvalidArgumentError(`${what} is a number from ${least} to ${most}.`)
  }
}

const portNumber = wholeNumber('a port', 1, 65535)

type Mutable<T> = { -readonly [Key in keyof T]?: T[Key] }

/** Adds what `-o` says to what earlier ones said. */
function mountOptions(text: string, before: Mutable<SheepfsOptions> = {}): Mutable<SheepfsOptions> {
  const found = { ...before }
  for (const word of text.split(',').filter((one) => one !== '')) {
    const [name, value = ''] = word.split(/=(.*)/s) as [string, string?]
    const flag = FLAGS.find((one) => one === word)
    if (word === 'ro') found.readOnly = true
    else if (word === 'allow_other') {
      found.allowOther = true
      // Without, whoever gets in may write on every disk: nobody else looks at modes.
      found.defaultPermissions = true
    } else if (word === 'default_permissions') found.defaultPermissions = true
    else if (word === 'pagecache') found.pageCache = true
    else if (name === 'uid') found.uid = wholeNumber('uid', 0, 2 ** 32 - 2)(value)
    else if (name === 'gid') found.gid = wholeNumber('gid', 0, 2 ** 32 - 2)(value)
    else if (name === 'port') found.port = portNumber(value)
    else if (name === 'host' && value !== '') found.host = value
    else if (name === 'io_timeout') {
      found.patienceMs = wholeNumber('io_timeout', 1, 1_000_000)(value) * 1000
    } else if (flag !== undefined) found.flags = [...(found.flags ?? []), flag]
    else if (word === 'allow_root') {
      throw new InvalidArgumentError("'allow_root' is not known here; see allow_other.")
    } else if (!NOT_OURS.test(word)) {
      throw new InvalidArgumentError(`'${word}' is no mount option of sheepfs.`)
    }
  }
  return found
}

/** `HOST`, `HOST:PORT`, `[v6]:PORT`, or a word like `sheepdog` that fstab needs in the first place. */
function sourceOf(text: string): Mutable<SheepfsOptions> {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:/]+))(?::(\d+))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined) throw new InvalidArgumentError(`'${text}' is no HOST[:PORT].`)
  if (host === 'sheepdog' || host === 'sheepfs' || host === 'none') return {}
  return { host, ...(port !== undefined && { port: portNumber(port) }) }
}

interface Given {
  address?: string
  port?: number
  foreground?: boolean
  debug?: boolean
  pagecache?: boolean
  objectcache?: boolean
  options?: Mutable<SheepfsOptions>
}

/** Also what the manual and completion are held against. */
export function sheepfsCommand(version: string): Command {
  return new Command('sheepfs')
    .description('Shows the VDIs and snapshots of a sheepdog cluster as files.')
    .usage('[options] [HOST[:PORT]] MOUNTPOINT')
    .argument('[words...]')
    .configureHelp({ visibleArguments: () => [] })
    .option('-a, --address <address>', `address of a sheep (default: ${HOST_DEFAULT})`)
    .option('-p, --port <port>', `its port (default: ${PORT_DEFAULT})`, portNumber)
    .option('-d, --debug', 'tell of everything; stays in the foreground')
    .option('-f, --foreground', 'stay in the foreground')
    .option('-k, --pagecache', "disks go through the kernel's page cache")
    .option('-o, --options <list>', 'mount options, see below', mountOptions)
    .option('--objectcache', 'accepted for sheepdog 1.0: the sheep decides (sheep -w)')
    .version(`Sheepdog file system version ${version}`, '-v, --version')
    .addHelpText('after', MOUNT_OPTIONS_HELP)
    .exitOverride()
}

/** Prints help, version and errors itself. */
export function parseSheepfsOptions(argv: readonly string[], version: string): Parsed {
  const program = sheepfsCommand(version)
  try {
    program.parse(argv, { from: 'user' })
    const given = program.opts<Given>()
    const words = program.args
    if (words.length === 0) program.error("error: no MOUNTPOINT; try 'sheepfs --help'")
    if (words.length > 2) program.error("error: too many arguments; try 'sheepfs --help'")
    const mountPoint = resolve(words.at(-1)!)
    const source = words.length === 2 ? sourceOf(words[0]!) : {}
    const { options = {} } = given
    return {
      kind: 'run',
      options: {
        mountPoint,
        host: given.address ?? source.host ?? options.host ?? HOST_DEFAULT,
        port: given.port ?? source.port ?? options.port ?? PORT_DEFAULT,
        foreground: given.foreground === true || given.debug === true,
        debug: given.debug === true,
        pageCache: given.pagecache === true || options.pageCache === true,
        readOnly: options.readOnly === true,
        allowOther: options.allowOther === true,
        defaultPermissions: options.defaultPermissions === true,
        flags: options.flags ?? [],
        uid: options.uid,
        gid: options.gid,
        patienceMs: options.patienceMs,
      },
    }
  } catch (error) {
    if (error instanceof InvalidArgumentError) {
      process.stderr.write(`error: ${error.message}\n`)
      return { kind: 'exit', status: 1 }
    }
    if (error instanceof CommanderError) return { kind: 'exit', status: error.exitCode }
    throw error
  }
}
