/** The kernel's NBD client, over native-bindings/nbd/nbd.c, sysfs and the device nodes. */
import { existsSync, constants as fsConstants } from 'node:fs'
import { open, readdir, readFile } from 'node:fs/promises'
import { endianness } from 'node:os'
import type { IoctlSettings, KernelDevice, NbdKernel } from '../nbd-kernel.js'
import type { Connection } from '../world.js'
import { loadAddon } from './addon.js'
import { readingDescriptor, SocketConnection } from './connection.js'

const SYSFS = '/sys/block'
/** Sysfs counts in these, whatever the device's blocks are. */
const SECTOR_BYTES = 512
const PROBE_BYTES = 4096

interface Binding {
  netlink(request: Uint8Array): Promise<Buffer>
  watch(group: number, listener: (messages: Buffer) => void): void
  serve(path: string, how: IoctlSettings, descriptors: readonly number[]): Promise<void>
  hangUp(path: string): Promise<void>
  noticeDeath(fd: number, milliseconds: number): void
  pair(): readonly [number, number]
}

/** What libuv has under a socket, as far as it is needed. */
interface Handle {
  readStop(): number
}

let loaded: Binding | undefined

function binding(): Binding {
  if (loaded !== undefined) return loaded
  if (endianness() !== 'LE') throw new Error('netlink is spoken on little-endian machines only')
  const { binding: found, absent } = loadAddon('nbd')
  if (absent !== undefined) {
    throw new Error(
      `this dog is without its NBD binding (Debian: apt-get install gcc libc6-dev, then npm run build): ${absent}`,
    )
  }
  loaded = found as Binding
  return loaded
}

const deviceNode = (index: number): string => `/dev/nbd${index}`

export class NodeNbdKernel implements NbdKernel {
  async netlink(request: Uint8Array): Promise<Buffer> {
    return await binding().netlink(request)
  }

  watch(group: number, listener: (messages: Buffer) => void): void {
    binding().watch(group, listener)
  }

  async serve(index: number, how: IoctlSettings, descriptors: readonly number[]): Promise<void> {
    await binding().serve(deviceNode(index), how, descriptors)
  }

  async hangUp(index: number): Promise<void> {
    await binding().hangUp(deviceNode(index))
  }

  descriptor(connection: Connection, silenceMs: number): number {
    const fd = descriptorOf(connection)
    const socket = (connection as SocketConnection).surrender() as unknown as { _handle: Handle }
    // Pausing the stream would read ahead, and take the kernel's first answers from it.
    socket._handle.readStop()
    if (silenceMs > 0) binding().noticeDeath(fd, silenceMs)
    return fd
  }

  noticeDeath(connection: Connection, milliseconds: number): void {
    binding().noticeDeath(descriptorOf(connection), milliseconds)
  }

  pair(): readonly [Connection, Connection] {
    const [one, other] = binding().pair()
    return [
      new SocketConnection(readingDescriptor(one)),
      new SocketConnection(readingDescriptor(other)),
    ]
  }

  async devices(): Promise<KernelDevice[]> {
    const names = await readdir(SYSFS).catch(() => [])
    const indexes = names
      .map((name) => /^nbd(\d+)$/.exec(name)?.[1])
      .filter((digits) => digits !== undefined)
      .map(Number)
      .sort((a, b) => a - b)
    return await Promise.all(indexes.map(readDevice))
  }

  async probe(index: number): Promise<void> {
    const file = await open(deviceNode(index), fsConstants.O_RDONLY)
    try {
      await file.read(Buffer.alloc(PROBE_BYTES), 0, PROBE_BYTES, 0)
    } finally {
      await file.close()
    }
  }

  async settle(index: number): Promise<void> {
    // O_EXCL without O_CREAT: nobody has claimed the device or a partition of it (open(2)).
    const file = await open(deviceNode(index), fsConstants.O_RDONLY | fsConstants.O_EXCL)
    try {
      await file.sync()
    } finally {
      await file.close()
    }
  }
}

function descriptorOf(connection: Connection): number {
  if (!(connection instanceof SocketConnection)) throw new Error('not a socket of this machine')
  const { descriptor } = connection
  if (descriptor === undefined) throw new Error('the connection has just ended')
  return descriptor
}

async function readDevice(index: number): Promise<KernelDevice> {
  const attribute = async (name: string): Promise<string | undefined> => {
    const path = `${SYSFS}/nbd${index}/${name}`
    return await readFile(path, 'utf8').then(
      (content) => content.trim(),
      () => undefined,
    )
  }
  const pid = Number((await attribute('pid')) ?? '') || undefined
  const attached = pid !== undefined
  return {
    index,
    sizeBytes: attached ? Number(await attribute('size')) * SECTOR_BYTES : 0,
    readOnly: (await attribute('ro')) === '1',
    pid,
    pidLives: attached && existsSync(`/proc/${pid}`),
    backend: (await attribute('backend')) || undefined,
  }
}
