/** `dog nbd devices`: what is attached to this host; `dog nbd list` shows it below what the sheep says. */
import type { KernelDevice } from '../world/nbd-kernel.js'
import type { Context, DogWorld, Subcommand } from './command.js'
import { Exit } from './failure.js'
import { parseBackend } from './nbd-backend.js'
import { addressText } from './nbd-dial.js'
import { vdiOption as option } from './options.js'
import { padLeft, padRight } from './output.js'
import { sizeField } from './sizes.js'

const HEADER = 'Device            Size  Mode  Keeper  VDI'

export const devices: Subcommand = {
  name: 'devices',
  summary: 'list the NBD devices of this host',
  options: [option.raw, option.help, option.time, option.json],
  synopsis: '',
  run: runDevices,
}

async function runDevices({ out, options, world }: Context): Promise<number> {
  const attached = await attachedDevices(world)
  if (options.json) out.json({ devices: attached.map(deviceJson) })
  else for (const line of deviceTable(attached, options.raw === true)) out.line(line)
  return Exit.ok
}

/** Those to which something is attached, by whatever program. */
export async function attachedDevices({ nbdKernel }: DogWorld): Promise<KernelDevice[]> {
  const all = (await nbdKernel?.devices()) ?? []
  return all.filter(({ pid }) => pid !== undefined)
}

export function deviceTable(attached: readonly KernelDevice[], raw: boolean): string[] {
  const rows = attached.map((device) => row(device, raw))
  return raw ? rows : [HEADER, ...rows]
}

function row(device: KernelDevice, raw: boolean): string {
  const { index, sizeBytes, readOnly, pid, pidLives } = device
  const words = [
    `/dev/nbd${index}`,
    sizeField(sizeBytes, raw),
    readOnly ? 'ro' : 'rw',
    pidLives ? String(pid) : '-',
    sourceText(device),
  ] as const
  if (raw) return words.join(' ')
  const [name, size, mode, keeper, source] = words
  return `${padRight(name, 12)} ${padLeft(size, 9)}  ${mode}    ${padLeft(keeper, 6)}  ${source}`
}

function sourceText({ backend }: KernelDevice): string {
  const source = parseBackend(backend ?? '')
  if (source === undefined) return backend ?? '?'
  const place = `${source.exportName} at ${source.servers.map(addressText).join(', ')}`
  return source.tls === undefined ? place : `${place} (TLS)`
}

/** `keeper`: process that dials again, or holds the device by ioctl; null when there is none. */
export function deviceJson(device: KernelDevice): Record<string, unknown> {
  const { index, sizeBytes, readOnly, pid, pidLives, backend } = device
  const source = parseBackend(backend ?? '')
  return {
    ...{ device: `/dev/nbd${index}`, sizeBytes, readOnly, keeper: pidLives ? pid : null },
    export: source?.exportName ?? null,
    servers: source?.servers.map(addressText) ?? [],
    tls: source?.tls !== undefined,
    backend: backend ?? null,
  }
}
