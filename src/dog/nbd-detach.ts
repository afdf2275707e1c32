/** `dog nbd detach`, `dog nbd refresh`: of a device, or of the one a VDI is attached to. */
import type { KernelDevice, NbdKernel } from '../world/nbd-kernel.js'
import type { Context, Subcommand } from './command.js'
import { errnoName, errnoText } from './errno.js'
import { Exit, Failure, failed, misused } from './failure.js'
import { deviceIndex, kernelOf } from './nbd-attach.js'
import { parseBackend } from './nbd-backend.js'
import { KernelRefused, NbdFamily, withoutModule } from './nbd-device.js'
import { openAll } from './nbd-open.js'
import { vdiOption as shared } from './options.js'

const GONE_POLL_MS = 50
const GONE_MS = 10_000
const SYNOPSIS = '</dev/nbdN|vdiname[@tag]>'

export const detach: Subcommand = {
  name: 'detach',
  summary: 'detach a VDI from this host',
  options: [shared.force, shared.help, shared.time],
  synopsis: SYNOPSIS,
  needsOperand: true,
  run: runDetach,
}

export const refresh: Subcommand = {
  name: 'refresh',
  summary: 'make a device as large as its VDI has become',
  options: [shared.help, shared.time],
  synopsis: SYNOPSIS,
  needsOperand: true,
  run: runRefresh,
}

/** What was written is made durable first; a device in use is left alone. */
async function runDetach({ operands, options, world }: Context): Promise<number> {
  const kernel = kernelOf(world)
  const { index } = await attachedDevice(kernel, operands)
  const name = `/dev/nbd${index}`
  if (!options.force) {
    await kernel.settle(index).catch((error: unknown) => {
      if (errnoName(error) === 'EBUSY') {
        throw failed(`${name} is in use (mounted, swap, another device on it)`, 'See -f')
      }
      throw failed(
        `What was written to ${name} cannot be made durable: ${errnoText(error)}`,
        'See -f',
      )
    })
  }
  const family = await NbdFamily.find(kernel)
  await (family === undefined ? kernel.hangUp(index) : family.disconnect(index)).catch(refused)
  const end = world.clock.monotonic() + GONE_MS
  while ((await kernel.devices()).some((one) => one.index === index && one.pid !== undefined)) {
    if (world.clock.monotonic() > end) {
      throw new Failure(Exit.system, [`${name} does not let go`])
    }
    await new Promise<void>((resolve) => void world.clock.after(GONE_POLL_MS, resolve))
  }
  return Exit.ok
}

/** A new connection is told the size of today; the kernel takes it over for the device. */
async function runRefresh({ operands, world, out }: Context): Promise<number> {
  const kernel = kernelOf(world)
  const device = await attachedDevice(kernel, operands)
  const { index, backend = '' } = device
  const name = `/dev/nbd${index}`
  const family = await NbdFamily.find(kernel)
  const source = parseBackend(backend)
  if (family === undefined) throw withoutModule()
  if (source === undefined) throw failed(`${name} was not attached by dog: it says '${backend}'`)
  const wish = { ...source, index, connections: 1, readOnly: false }
  const { open } = await openAll(world, { ...wish, timeoutSeconds: 0, deadSeconds: 0 })
  const { connection, sizeBytes } = open[0]!
  connection.destroy()
  if (sizeBytes < device.sizeBytes) {
    throw failed(`${source.exportName} is smaller than ${name}: not changed`)
  }
  await family.replaceDead({ index, backend, sizeBytes }).catch(refused)
  out.line(`${name} ${sizeBytes}`)
  return Exit.ok
}

function refused(error: unknown): never {
  if (error instanceof KernelRefused) throw new Failure(Exit.system, [error.message])
  throw error
}

async function attachedDevice(
  kernel: NbdKernel,
  [what = '', ...more]: readonly string[],
): Promise<KernelDevice> {
  if (more.length > 0) throw misused(`One device at a time: '${more.join(' ')}' is too much`)
  const attached = (await kernel.devices()).filter(({ pid }) => pid !== undefined)
  const isDevice = /^(\/dev\/)?nbd\d+$/.test(what)
  const found = isDevice
    ? attached.filter(({ index }) => index === deviceIndex(what))
    : attached.filter(({ backend }) => parseBackend(backend ?? '')?.exportName === what)
  if (found.length > 1) {
    const names = found.map(({ index }) => `/dev/nbd${index}`).join(', ')
    throw failed(`${what} is attached to ${names}: say which`)
  }
  if (found[0] !== undefined) return found[0]
  const where = isDevice ? `Nothing is attached to ${what}` : `${what} is not attached to this host`
  throw new Failure(Exit.missing, [where])
}
