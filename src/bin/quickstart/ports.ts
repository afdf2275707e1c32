/**
 * Which ports a quick-start cluster uses. Epoch logs name nodes by address and port, so a data directory keeps
 * the ports of its first start for ever; they are written down beside the stores.
 */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'

const FILE = 'quickstart.json'
const FIRST_PORT = 7000
const FIRST_NBD_PORT = 10809
/** How far up to look for a free port. */
const TRIES = 200

export interface Ports {
  /** One a node, in order. */
  readonly sheep: readonly number[]
  readonly nbd: number
}

/**
 * The directory's own ports, or free ones that become its own. Throws an Error for people when a remembered
 * port is taken.
 */
export async function claimPorts(directory: string, nodes: number): Promise<Ports> {
  const known = await readPorts(directory)
  const sheep = known?.sheep ?? (await freeRun(FIRST_PORT, nodes))
  for (const port of known?.sheep ?? []) {
    if (!(await isFree(port))) throw new Error(taken(port, directory))
  }
  const nbd = await freeFrom(known?.nbd ?? FIRST_NBD_PORT)
  const ports = { sheep, nbd }
  await remember(directory, ports)
  return ports
}

function taken(port: number, directory: string): string {
  return [
    `port ${port} is taken, and the nodes in ${directory} are known to each other by their ports.`,
    'Is this cluster running already? Then stop it with:',
    `    node build/bin/dog.js cluster shutdown -p ${port}`,
    'If another program has the port, stop that one, or begin anew with another --data directory.',
  ].join('\n')
}

async function readPorts(directory: string): Promise<Ports | undefined> {
  const path = `${directory}/${FILE}`
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  const ports = parsePorts(text)
  if (ports === undefined) throw new Error(`${path} does not hold the ports of this cluster`)
  return ports
}

function parsePorts(text: string): Ports | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { sheep, nbd } = value as { sheep?: unknown; nbd?: unknown }
  if (!Array.isArray(sheep) || !sheep.every(isPort) || !isPort(nbd)) return undefined
  return { sheep, nbd }
}

function isPort(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) > 0 && Number(value) < 65_536
}

async function remember(directory: string, ports: Ports): Promise<void> {
  const path = `${directory}/${FILE}`
  await writeFile(`${path}.tmp`, `${JSON.stringify(ports)}\n`)
  await rename(`${path}.tmp`, path)
}

/** `count` free ports in a row, so that people can guess them. */
async function freeRun(from: number, count: number): Promise<number[]> {
  for (let first = from; first < from + TRIES; first += count) {
    const run = Array.from({ length: count }, (_, i) => first + i)
    const free = await Promise.all(run.map(isFree))
    if (free.every(Boolean)) return run
  }
  throw new Error(`no ${count} free ports between ${from} and ${from + TRIES}`)
}

async function freeFrom(from: number): Promise<number> {
  for (let port = from; port < from + TRIES; port++) if (await isFree(port)) return port
  throw new Error(`no free port between ${from} and ${from + TRIES}`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen({ port, host: '127.0.0.1' }, () => probe.close(() => resolve(true)))
  })
}
