/** FUSE of this machine, over native-bindings/fuse/fuse.c: mounts as root by mount(2), else by fusermount3. */
import { spawnSync } from 'node:child_process'
import { closeSync, statSync, writeFileSync } from 'node:fs'
import type { FuseDevice, FuseEvents } from '../fuse.js'
import { loadAddon } from './addon.js'

/** mount(2), umount2(2). */
const MS_RDONLY = 1
const MS_NOSUID = 2
const MS_NODEV = 4
const MS_NOEXEC = 8
const MS_SYNCHRONOUS = 16
const MS_NOATIME = 1024
const MNT_FORCE = 1
const MNT_DETACH = 2

const WRITE_BYTES_MAX = 1024 * 1024
/** Header and fixed part of a write; a page keeps the payload of neighbours apart. */
const SLOT_BYTES = WRITE_BYTES_MAX + 4096
const SLOTS = 48
/** The kernel's own default is a twentieth of what one object holds. */
const READ_AHEAD_KIB = 1024
const ENODEV = 19

type Port = { readonly port: unique symbol }

interface Binding {
  openDevice(): number
  mount(source: string, target: string, type: string, flags: number, data: string): void
  unmount(target: string, flags: number): void
  mountAsUser(target: string, options: string): number
  serve(
    fd: number,
    slots: number,
    slotBytes: number,
    callback: (count: number) => void,
  ): { readonly port: Port; readonly memory: ArrayBuffer; readonly ready: Int32Array }
  release(port: Port, slot: number): void
  stop(port: Port): void
  reply(fd: number, head: Uint8Array, body?: Uint8Array): number
}

export interface MountOptions {
  /** Absolute. */
  readonly mountPoint: string
  readonly readOnly: boolean
  readonly allowOther: boolean
  /** The kernel checks modes and owners. */
  readonly defaultPermissions: boolean
  /** What `mount` shows as the source. */
  readonly name: string
  /** Of the VFS; nosuid and nodev are always on. */
  readonly flags: readonly ('nosuid' | 'nodev' | 'noexec' | 'noatime' | 'sync')[]
}

const FLAG_BITS = {
  nosuid: MS_NOSUID,
  nodev: MS_NODEV,
  noexec: MS_NOEXEC,
  noatime: MS_NOATIME,
  sync: MS_SYNCHRONOUS,
} as const

/** Throws an Error that names the remedy when the binding is missing or does not load. */
function loadBinding(): Binding {
  const { binding, absent } = loadAddon('fuse')
  if (absent === undefined) return binding as Binding
  throw new Error(`sheepfs needs its FUSE binding; run \`npm run build\` (${absent})`)
}

/** Throws an Error with a sentence for people when it cannot be mounted. */
export function mountFuse(options: MountOptions): FuseDevice {
  const binding = loadBinding()
  detachDead(binding, options.mountPoint)
  const isRoot = process.getuid?.() === 0
  const fd = isRoot ? mountAsRoot(binding, options) : mountAsUser(binding, options)
  setReadAhead(options.mountPoint)
  return new NodeFuseDevice(binding, fd, options.mountPoint)
}

/** What a killed process left behind; mounting over it would hide it for ever. */
function detachDead(binding: Binding, mountPoint: string): void {
  try {
    statSync(mountPoint)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTCONN') return
    if (process.getuid?.() === 0) binding.unmount(mountPoint, MNT_DETACH)
    else spawnSync('fusermount3', ['-u', '-z', '--', mountPoint], { stdio: 'ignore' })
  }
}

function mountAsRoot(binding: Binding, options: MountOptions): number {
  const { mountPoint, readOnly, allowOther, defaultPermissions, name, flags } = options
  let fd: number
  try {
    fd = binding.openDevice()
  } catch (error) {
    throw new Error(`/dev/fuse cannot be opened: ${message(error)} (is the module fuse loaded?)`)
  }
  try {
    const bits = flags.reduce((all, flag) => all | FLAG_BITS[flag], MS_NOSUID | MS_NODEV)
    const data = [
      `fd=${fd},rootmode=40000,user_id=${process.getuid!()},group_id=${process.getgid!()}`,
      ...(allowOther ? ['allow_other'] : []),
      ...(defaultPermissions ? ['default_permissions'] : []),
    ]
    const mode = readOnly ? MS_RDONLY : 0
    binding.mount(name, mountPoint, 'fuse.sheepfs', bits | mode, data.join(','))
    return fd
  } catch (error) {
    closeSync(fd)
    throw new Error(`${mountPoint} cannot be mounted: ${message(error)}`)
  }
}

function mountAsUser(binding: Binding, options: MountOptions): number {
  const { mountPoint, readOnly, allowOther, defaultPermissions, name, flags } = options
  const words = [
    readOnly ? 'ro' : 'rw',
    `fsname=${name.replaceAll(',', '\\,')}`,
    'subtype=sheepfs',
    ...flags,
    ...(allowOther ? ['allow_other'] : []),
    ...(defaultPermissions ? ['default_permissions'] : []),
  ]
  let fd: number
  try {
    fd = binding.mountAsUser(mountPoint, words.join(','))
  } catch (error) {
    throw new Error(`${mountPoint} cannot be mounted without root: ${message(error)}`)
  }
  if (fd < 0) throw new Error(`${mountPoint} cannot be mounted: fusermount3 refused`)
  return fd
}

/** Best effort: a mount without it is slower, and that is all. */
function setReadAhead(mountPoint: string): void {
  if (process.getuid?.() !== 0) return
  // A stat of our own mount would wait for ourselves: the mount table names the device instead.
  const table = spawnSync('findmnt', ['-n', '-o', 'MAJ:MIN', '--mountpoint', mountPoint], {
    encoding: 'utf8',
  })
  const device = table.stdout?.trim().split('\n').at(-1)?.trim()
  if (!device) return
  try {
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, `${READ_AHEAD_KIB}`)
  } catch {
    // Containers have no writable /sys.
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

class NodeFuseDevice implements FuseDevice {
  readonly writeBytesMax = WRITE_BYTES_MAX
  readonly #binding: Binding
  readonly #fd: number
  readonly #mountPoint: string
  #port: Port | undefined
  #closed = false

  constructor(binding: Binding, fd: number, mountPoint: string) {
    this.#binding = binding
    this.#fd = fd
    this.#mountPoint = mountPoint
  }

  start(events: FuseEvents): void {
    const binding = this.#binding
    const { port, memory, ready } = binding.serve(this.#fd, SLOTS, SLOT_BYTES, (count) => {
      if (count < 0) {
        this.#close()
        events.closed(-count === ENODEV ? undefined : `reading from the kernel: errno ${-count}`)
        return
      }
      for (let i = 0; i < count; i++) {
        const slot = ready[2 * i]!
        const bytes = Buffer.from(memory, slot * SLOT_BYTES, ready[2 * i + 1]!)
        events.request(bytes, () => binding.release(port, slot))
      }
      events.turn()
    })
    this.#port = port
  }

  reply(head: Uint8Array, body?: Uint8Array): boolean {
    return !this.#closed && this.#binding.reply(this.#fd, head, body) === 0
  }

  unmount(): void {
    if (this.#closed) return
    if (process.getuid?.() === 0) {
      try {
        this.#binding.unmount(this.#mountPoint, MNT_FORCE | MNT_DETACH)
      } catch {
        // Somebody else has unmounted it.
      }
    } else {
      spawnSync('fusermount3', ['-u', '-z', '--', this.#mountPoint], { stdio: 'ignore' })
    }
    this.#close()
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#port !== undefined) this.#binding.stop(this.#port)
    closeSync(this.#fd)
  }
}
