/**
 * What the native binding does (native.ts), without it: by programs every Linux has, and where there is none by less. Locks,
 * attributes and syncs are as good as the binding's, only slower to come by; the rest is listed in `SHORTCOMINGS`.
 *
 * perl or python3 make the calls Node cannot. A lock is taken on a descriptor that is handed down, and an open file
 * description's lock stays with it when the child has gone: it excludes sheep with the binding, and the other way round.
 */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import type { Native } from './native.js'

/** For people, once at the start. */
export const SHORTCOMINGS =
  'every read takes the way through the thread pool, new objects get their space when they are written, ' +
  'holes inside objects are written as zeros, the system log and direct I/O cannot be had'

const CALL_MS = 10_000
const BUSY_STATUS = 3
const ABSENT_STATUS = 4
const UNSUPPORTED_STATUS = 5

/**
 * Arguments: what to do, the path or nothing, the attribute, its value in hex. Descriptor 3 is the file to lock. Numbers of
 * errors and calls are Linux' own on both kinds of machine; loading a module for their names would take longer than the call.
 */
const SYSTEM_CALLS = process.arch === 'arm64' ? [8, 5, 14] : [191, 188, 197]
const PERL = `
use strict;
my ($what, $path, $name, $value) = @ARGV;
$path .= ""; $name .= "";
my ($get, $set, $remove) = (${SYSTEM_CALLS.join(', ')});
sub over { my $n = $! + 0; print STDERR "$!"; exit($n == 61 ? 4 : $n == 95 ? 5 : 1) }
if ($what eq "lock") {
  open(my $file, "+<&=", 3) or over();
  my $whole = pack("s s x4 q q l x4", 1, 0, 0, 0, 0);
  fcntl($file, 37, $whole) and exit 0;
  exit 3 if $! == 11 || $! == 13;
  over();
}
if ($what eq "get") {
  my $into = "\\0" x 65536;
  my $length = syscall($get, $path, $name, $into, 65536);
  over() if $length < 0;
  print unpack("H*", substr($into, 0, $length));
  exit 0;
}
if ($what eq "set") {
  my $bytes = pack("H*", $value);
  syscall($set, $path, $name, $bytes, length $bytes, 0) < 0 and over();
  exit 0;
}
syscall($remove, $path, $name) < 0 and over();
`
const PYTHON = `
import errno, fcntl, os, struct, sys
what, *rest = sys.argv[1:]
try:
    if what == 'lock': fcntl.fcntl(3, 37, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))
    elif what == 'get': print(os.getxattr(rest[0], rest[1]).hex(), end='')
    elif what == 'set': os.setxattr(rest[0], rest[1], bytes.fromhex(rest[2]))
    else: os.removexattr(rest[0], rest[1])
except OSError as error:
    print(error, file=sys.stderr)
    number = error.errno
    if what == 'lock' and number in (errno.EAGAIN, errno.EACCES): sys.exit(3)
    sys.exit(4 if number == errno.ENODATA else 5 if number == errno.ENOTSUP else 1)
`
/** perl numbers system calls by hand: only where they are known. */
const HELPERS: readonly (readonly string[])[] = [
  ...(['x64', 'arm64'].includes(process.arch) ? [['perl', '-e', PERL, '--']] : []),
  ['python3', '-c', PYTHON],
]

interface Outcome {
  readonly status: number
  readonly output: string
}

/** Throws an Error for people when neither program is there. */
function help(words: readonly string[], fd: number | 'ignore' = 'ignore'): Outcome {
  for (const [program = '', ...args] of HELPERS) {
    const { error, status, stdout, stderr } = spawnSync(program, [...args, ...words], {
      stdio: ['ignore', 'pipe', 'pipe', fd],
      encoding: 'utf8',
      timeout: CALL_MS,
    })
    if ((error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') continue
    if (error !== undefined) throw error
    if (status === 0 || status === BUSY_STATUS) return { status, output: stdout }
    if (status === ABSENT_STATUS) return { status, output: '' }
    if (status === UNSUPPORTED_STATUS) throw unsupported(words[0] ?? '')
    throw new Error(`${program} could not ${words.slice(0, 3).join(' ')}: ${stderr.trim()}`)
  }
  throw new Error(
    `without the native binding perl or python3 is needed to ${words[0]} a file of the store: install one, ` +
      'or a C compiler and run `npm run build`',
  )
}

function unsupported(syscall: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`ENOTSUP: not without the native binding, ${syscall}`), {
    code: 'ENOTSUP',
    syscall,
  })
}

const place = (file: string | number): string =>
  typeof file === 'string' ? file : `/proc/${process.pid}/fd/${file}`

/**
 * Whether somebody's lock on the file shows (proc_locks(5)). Members of a local cluster look at each other's locks many times a
 * second, and nearly all of them are taken: that must not cost a process each time. Not seen means nothing.
 */
function showsLock(fd: number): boolean {
  const { dev, ino } = fs.fstatSync(fd, { bigint: true })
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn)
  const [high, low] = [major, minor].map((part) => part.toString(16).padStart(2, '0'))
  try {
    return fs.readFileSync('/proc/locks', 'latin1').includes(` ${high}:${low}:${ino} `)
  } catch {
    // Hidden from this process: then the lock is tried.
    return false
  }
}

function lock(path: string): number {
  const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644)
  try {
    if (!showsLock(fd) && help(['lock', path], fd).status === 0) return fd
  } catch (error) {
    fs.closeSync(fd)
    throw error
  }
  fs.closeSync(fd)
  return -1
}

function writeNow(fd: number, data: Uint8Array, position: number): number {
  let moved = 0
  while (moved < data.length) {
    moved += fs.writeSync(fd, data, moved, data.length - moved, position + moved)
  }
  return moved
}

/** coreutils' sync makes syncfs(2) for one file system. */
function syncfs(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('sync', ['--file-system', path], { stdio: 'ignore' })
    child.once('error', reject)
    child.once('exit', (status, signal) => {
      if (status === 0) resolve()
      else reject(new Error(`EIO: sync --file-system ${path}: ${signal ?? `status ${status}`}`))
    })
  })
}

export const portableNative: Native = {
  // -2: this file never can.
  readNow: () => -2,
  writeNow,
  directOffset: () => {
    throw unsupported('O_DIRECT')
  },
  // All data up to the end, which is true of any file, if not the whole truth.
  seekData: (fd, from) => (from < fs.fstatSync(fd).size ? from : -1),
  seekHole: (fd, from) => {
    const { size } = fs.fstatSync(fd)
    return from < size ? size : -1
  },
  getAttribute: (file, name) => {
    const { status, output } = help(['get', place(file), name])
    return status === 0 ? Buffer.from(output, 'hex') : undefined
  },
  setAttribute: (file, name, value) => {
    help(['set', place(file), name, Buffer.from(value).toString('hex')])
  },
  removeAttribute: (file, name) => help(['remove', place(file), name]).status === 0,
  lock,
  allocate: () => Promise.reject(unsupported('fallocate')),
  punch: () => Promise.reject(unsupported('fallocate')),
  syncfs,
  syslog: () => {
    throw unsupported('syslog')
  },
}
