/**
 * `dog nbd attach`: a VDI as /dev/nbdN, without any other program. `dog` does the handshake and gives the sockets to the
 * kernel, which does the rest by itself; with --persist a `dog` stays behind and dials again when connections die.
 */

import { TransmissionFlag } from '../wire/nbd/constants.js'
import type { NbdKernel } from '../world/nbd-kernel.js'
import type { Address } from '../world/world.js'
import type { Context, DogWorld, Subcommand } from './command.js'
import { errnoText } from './errno.js'
import { Exit, Failure, misused } from './failure.js'
import { backendText, NBD_PORT, parseServer } from './nbd-backend.js'
import { EBUSY, KernelRefused, NbdFamily, withoutModule } from './nbd-device.js'
import { addressText } from './nbd-dial.js'
import { Keeper } from './nbd-keeper.js'
import { keyOption, keysOf } from './nbd-keys.js'
import { descriptorsOf, flagsOf, type Opened, openAll, type Wish } from './nbd-open.js'
import type { OptionSpec } from './options.js'
import { vdiOption as shared } from './options.js'

const CONNECTIONS_MAX = 16
const SECONDS_MAX = 86_400
/** With --persist requests wait for a connection as long as it takes: ten years, which no counter of the kernel minds. */
const FOREVER_SECONDS = 315_360_000
const DEVICE_POLL_MS = 50

function wholeNumber(what: string, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : 0
    if (value < 1 || value > max) throw misused(`Invalid ${what} '${text}': 1 to ${max}`)
    return value
  }
}

const option = {
  server: {
    letter: 's',
    long: 'server',
    valued: true,
    help:
      'where the NBD door is: HOST[:PORT] or unix:PATH; several\n' +
      `separated by commas are tried in turn (default: -a, ${NBD_PORT})`,
  },
  connections: {
    letter: 'C',
    long: 'connections',
    valued: true,
    help: 'use so many connections at once (default: 1)',
    parse: wholeNumber('number of connections', CONNECTIONS_MAX),
  },
  readOnly: { letter: 'R', long: 'read-only', help: 'nothing can be written to the device' },
  timeout: {
    letter: 't',
    long: 'timeout',
    valued: true,
    help:
      'a request without an answer for so many seconds fails, or goes\n' +
      'out again on another connection (default: it waits)',
    parse: wholeNumber('number of seconds', SECONDS_MAX),
  },
  persist: {
    letter: 'P',
    long: 'persist',
    help: 'stay behind, dial again when the server goes; I/O waits meanwhile',
  },
  foreground: {
    letter: 'f',
    long: 'foreground',
    help: 'with --persist or TLS: do not go to the background',
  },
  ioctl: {
    long: 'ioctl',
    help: 'the old way, for kernels before 4.12 and in containers; stays',
  },
} as const satisfies Record<string, OptionSpec>

export const attach: Subcommand = {
  name: 'attach',
  summary: 'attach a VDI to /dev/nbdN of this host',
  options: [
    ...[option.server, option.connections, option.readOnly, option.timeout, option.persist],
    ...[keyOption.certificates, keyOption.preSharedKeys, keyOption.user, keyOption.hostname],
    ...[option.foreground, option.ioctl, shared.address, shared.port, shared.help, shared.time],
    shared.json,
  ],
  synopsis: '<vdiname[@tag]> [/dev/nbdN]',
  needsOperand: true,
  run,
}

/** What became of a wish. */
export interface Attached {
  readonly wish: Wish
  readonly index: number
  readonly server: Address
  readonly sizeBytes: number
  readonly readOnly: boolean
  /** Settles when this process carries nothing for the device any more. */
  readonly relayed: Promise<unknown>
  /** It was attached before; any of its connections may be dead. */
  readonly isTakenOver: boolean
}

async function run(context: Context): Promise<number> {
  const { options, io } = context
  const wish = wishOf(context)
  const kernel = kernelOf(context.world)
  const stays = options.persist === true || options.ioctl === true || wish.tls !== undefined
  if (options.foreground && !stays) {
    throw misused('--foreground goes with --persist, --ioctl or TLS: nobody stays otherwise')
  }
  if (options.ioctl && options.persist) {
    throw misused('--persist needs netlink: by ioctl a connection cannot be replaced')
  }
  if (stays && !options.foreground && io.startBehind !== undefined) {
    return await io.startBehind(['--foreground'])
  }
  if (options.ioctl) return await serveByIoctl(context, kernel, wish)
  const family = await NbdFamily.find(kernel)
  if (family === undefined) throw withoutModule()
  // Before there is a connection that could die.
  const keeper = options.persist ? new Keeper(context, { kernel, family, wish }) : undefined
  const left = keeper && (await leftBehind(kernel, wish))
  const attached = left ?? (await attachByNetlink(context, { kernel, family, wish }))
  await announce(context, attached)
  if (keeper !== undefined) return await keeper.run(attached)
  await attached.relayed
  return Exit.ok
}

function wishOf({ operands, options, sheep }: Context): Wish {
  const [exportName = '', device, ...more] = operands
  if (more.length > 0) throw misused(`One device at a time: '${more.join(' ')}' is too much`)
  const texts = options.server?.split(',') ?? [
    addressText({ host: sheep.address.host, port: NBD_PORT }),
  ]
  const servers = texts.map((text) => {
    const server = parseServer(text)
    if (server === undefined) throw misused(`Invalid server '${text}': HOST[:PORT] or unix:PATH`)
    return server
  })
  return {
    ...{ servers, exportName, index: device === undefined ? undefined : deviceIndex(device) },
    connections: options.connections ?? 1,
    readOnly: options.readOnly === true,
    timeoutSeconds: options.timeout ?? 0,
    deadSeconds: options.persist ? FOREVER_SECONDS : 0,
    tls: keysOf(options),
  }
}

/** `/dev/nbd3` or `nbd3`. */
export function deviceIndex(device: string): number {
  const digits = /^nbd(\d{1,6})$/.exec(device.replace(/^\/dev\//, ''))?.[1]
  if (digits === undefined) throw misused(`'${device}' is no NBD device: /dev/nbd0, /dev/nbd1, ...`)
  return Number(digits)
}

export function kernelOf({ nbdKernel }: DogWorld): NbdKernel {
  if (nbdKernel !== undefined) return nbdKernel
  throw new Failure(Exit.system, ['There is no NBD client in this kernel'])
}

/** What it takes to attach. */
export interface Way {
  readonly kernel: NbdKernel
  readonly family: NbdFamily
  readonly wish: Wish
}

async function attachByNetlink(
  { world }: Context,
  { kernel, family, wish }: Way,
): Promise<Attached> {
  const opened = await openAll(world, wish)
  const { server, open } = opened
  const { sizeBytes, blockBytes } = open[0]!
  const flags = flagsOf(open[0]!, wish)
  const backend = backendText(wish)
  let index: number
  try {
    index = await family.connect({
      ...{ index: wish.index, sizeBytes, blockBytes, flags, backend },
      ...{ timeoutSeconds: wish.timeoutSeconds, deadSeconds: wish.deadSeconds },
      sockets: descriptorsOf(kernel, opened),
    })
  } catch (error) {
    if (!(error instanceof KernelRefused)) throw error
    throw new Failure(error.errno === EBUSY ? Exit.exists : Exit.system, [
      `Failed to attach ${wish.exportName}: ${error.message}`,
    ])
  } finally {
    // The kernel has references of its own; what it did not take ends here.
    for (const { connection } of open) connection.destroy()
  }
  await prove(kernel, index, () => family.disconnect(index))
  const readOnly = (flags & TransmissionFlag.READ_ONLY) !== 0
  const relayed = relayedOf(opened)
  return { wish, index, server, sizeBytes, readOnly, relayed, isTakenOver: false }
}

/** The device that was asked for, if it is attached to the same already and its keeper has died. */
async function leftBehind(kernel: NbdKernel, wish: Wish): Promise<Attached | undefined> {
  const device = (await kernel.devices()).find(({ index }) => index === wish.index)
  if (device?.pid === undefined || device.pidLives) return undefined
  if (device.backend !== backendText(wish)) return undefined
  const { index, sizeBytes, readOnly } = device
  const nothing = { relayed: Promise.resolve(), isTakenOver: true }
  return { wish, index, server: wish.servers[0]!, sizeBytes, readOnly, ...nothing }
}

function relayedOf({ open }: Opened): Promise<unknown> {
  return Promise.all(open.map(({ relayed }) => relayed))
}

/** Attached is what can be read; and partitions show when somebody opens the device. */
async function prove(kernel: NbdKernel, index: number, undo: () => Promise<void>): Promise<void> {
  try {
    await kernel.probe(index)
  } catch (error) {
    await undo()
    throw new Failure(Exit.system, [`/dev/nbd${index} cannot be read: ${errnoText(error)}`])
  }
}

/** Netlink leaves nobody behind; here this process is the device's life. */
async function serveByIoctl(context: Context, kernel: NbdKernel, wish: Wish): Promise<number> {
  const index = await freeDevice(kernel, wish)
  const opened = await openAll(context.world, wish)
  const { server, open } = opened
  const { sizeBytes, blockBytes } = open[0]!
  const flags = flagsOf(open[0]!, wish)
  const { timeoutSeconds } = wish
  const over = kernel
    .serve(
      index,
      { blockBytes, blocks: Math.floor(sizeBytes / blockBytes), flags, timeoutSeconds },
      descriptorsOf(kernel, opened),
    )
    .then(
      () => undefined,
      (error: unknown) => errnoText(error),
    )
    .finally(() => {
      for (const { connection } of open) connection.destroy()
    })
  if (!(await isUp(context.world, kernel, index, over))) {
    throw new Failure(Exit.system, [`Failed to attach /dev/nbd${index}: ${await over}`])
  }
  for (const { connection } of open) connection.destroy()
  await prove(kernel, index, () => kernel.hangUp(index))
  const readOnly = (flags & TransmissionFlag.READ_ONLY) !== 0
  const relayed = relayedOf(opened)
  const facts = { index, server, sizeBytes, readOnly }
  await announce(context, { wish, ...facts, relayed, isTakenOver: false })
  const why = await over
  await relayed
  if (why === undefined) return Exit.ok
  throw new Failure(Exit.system, [`/dev/nbd${index} has ended: ${why}`])
}

async function freeDevice(kernel: NbdKernel, { index }: Wish): Promise<number> {
  const devices = await kernel.devices()
  if (devices.length === 0) throw withoutModule()
  const possible = devices.filter((one) => index === undefined || one.index === index)
  const free = possible.find(({ pid }) => pid === undefined)
  if (free !== undefined) return free.index
  if (possible.length > 0) throw new Failure(Exit.exists, ['The device is in use'])
  throw new Failure(Exit.missing, [`There is no /dev/nbd${index} (modprobe nbd nbds_max=N)`])
}

/** The kernel says that a device is up where it shows whose it is; there is no other sign. */
async function isUp(
  { clock }: DogWorld,
  kernel: NbdKernel,
  index: number,
  over: Promise<unknown>,
): Promise<boolean> {
  let ended = false
  void over.then(() => {
    ended = true
  })
  for (;;) {
    const device = (await kernel.devices()).find((one) => one.index === index)
    if (ended) return false
    if (device?.pid !== undefined) return true
    await new Promise<void>((resolve) => void clock.after(DEVICE_POLL_MS, resolve))
  }
}

async function announce({ out, options, io }: Context, attached: Attached): Promise<void> {
  const { wish, index, server, sizeBytes, readOnly } = attached
  const device = `/dev/nbd${index}`
  if (options.json) {
    const { exportName, connections } = wish
    out.json({
      ...{ device, export: exportName, server: addressText(server) },
      ...{ sizeBytes, readOnly, connections, kept: options.persist === true },
    })
  } else out.line(device)
  await out.flush()
  io.ready?.()
}
