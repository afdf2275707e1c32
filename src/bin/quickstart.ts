/**
 * `npm start`: a cluster of three nodes and three copies on this machine's loopback, with a volume to attach.
 * Needs no root and writes nowhere but below its data directory; started again it finds what was there.
 *
 *   npm start                      data in ./sheepdog-data
 *   npm start -- --data DIR        data in DIR
 */
import { resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { makeDirectories } from '../world/node/directories.js'
import { dog, type SheepChild, startSheep } from './quickstart/children.js'
import { claimPorts, type Ports } from './quickstart/ports.js'

const DATA_MODE = 0o770
const NODES = 3
const VOLUME = 'Alice'
const VOLUME_SIZE = '10G'
const START_MS = 60_000
const STOP_MS = 30_000
const KILL_MS = 5_000
const POLL_MS = 200

const USAGE = `Usage: npm start [-- --data DIR]
  --data DIR   where the cluster lives (default: ./sheepdog-data)
  --help       this text`

/** Somebody wants us to end: not an error, and it may come at any moment. */
class Interrupted extends Error {}

let stopping = false

function readOptions() {
  try {
    const data = { type: 'string', default: 'sheepdog-data' } as const
    const help = { type: 'boolean', short: 'h', default: false } as const
    return parseArgs({ options: { data, help } }).values
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${USAGE}`)
  }
}

async function main(): Promise<void> {
  const values = readOptions()
  if (values.help) {
    console.log(USAGE)
    return
  }
  const directory = resolve(values.data)
  try {
    makeDirectories(directory, DATA_MODE)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`cannot use ${directory} as data directory: ${reason}`, { cause: error })
  }
  const ports = await claimPorts(directory, NODES)
  const children = ports.sheep.map((port, index) =>
    startSheep({
      directory: `${directory}/node${index}`,
      port,
      zone: index + 1,
      meeting: `${directory}/meeting`,
      ...(index === 0 ? { nbdPort: ports.nbd } : {}),
    }),
  )
  try {
    await serve(children, ports, directory)
  } finally {
    await stopAll(children, ports)
  }
}

/** Returns when asked to stop; throws when the cluster cannot start or no daemon is left. */
async function serve(children: readonly SheepChild[], ports: Ports, directory: string) {
  const asked = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        stopping = true
        resolve()
      })
    }
  })
  try {
    await bringUp(children, ports)
  } catch (error) {
    if (error instanceof Interrupted) return
    throw error
  }
  console.log(greeting(directory, ports))
  const allDead = Promise.all(children.map(watch)).then(() => {
    if (!stopping) throw new Error('no sheep is left')
  })
  await Promise.race([asked, allDead])
}

async function bringUp(children: readonly SheepChild[], ports: Ports): Promise<void> {
  const port = ports.sheep[0]!
  await poll(children, 'the nodes to find each other', async () => {
    const rows = (await dog(port, 'node', 'list', '-r')).trim().split('\n')
    return rows.filter(Boolean).length === NODES
  })
  const status = await dog(port, 'cluster', 'info')
  if (/waiting for cluster to be formatted/i.test(status)) {
    await dog(port, 'cluster', 'format', '-c', `${NODES}`)
  }
  await poll(children, 'the cluster to run', async () =>
    /^Cluster status: running/m.test(await dog(port, 'cluster', 'info')),
  )
  const rows = (await dog(port, 'vdi', 'list', '-r')).split('\n')
  const isThere = rows.some((row) => row.split(' ')[1] === VOLUME)
  if (!isThere) await dog(port, 'vdi', 'create', VOLUME, VOLUME_SIZE)
}

/** Asks until the answer is yes. A daemon that ends meanwhile, or the end of our patience, is an error. */
async function poll(
  children: readonly SheepChild[],
  what: string,
  probe: () => Promise<boolean>,
): Promise<void> {
  let last = ''
  for (let waitedMs = 0; waitedMs < START_MS; waitedMs += POLL_MS) {
    if (stopping) throw new Interrupted()
    const dead = children.find((child) => !child.isAlive())
    if (dead !== undefined) {
      throw new Error(`the sheep on port ${dead.plan.port} ended: ${await dead.lastWords()}`)
    }
    try {
      if (await probe()) return
    } catch (error) {
      last = (error as Error).message
    }
    await pause(POLL_MS)
  }
  throw new Error(`waited ${START_MS / 1000} s for ${what}. ${last}`)
}

/** The others go on without it; people should know, and why. */
async function watch(child: SheepChild): Promise<void> {
  await child.ended
  if (stopping) return
  const words = await child.lastWords()
  console.error(`\nThe sheep on port ${child.plan.port} ended: ${words}\n`)
  console.error('The others go on. Stop with Ctrl-C and start again to bring it back.')
}

async function stopAll(children: readonly SheepChild[], ports: Ports): Promise<void> {
  stopping = true
  const living = children.filter((child) => child.isAlive())
  if (living.length === 0) return
  console.log('Stopping the cluster ...')
  const port = living[0]?.plan.port ?? ports.sheep[0]!
  try {
    await dog(port, 'cluster', 'shutdown')
  } catch {
    // Not formatted yet, or not all there: each one can still end on its own, in order.
    for (const child of living) child.kill('SIGTERM')
  }
  const ended = Promise.all(living.map((child) => child.ended)).then(() => true)
  if (await Promise.race([ended, pause(STOP_MS, false, { ref: false })])) return
  for (const child of living) child.kill('SIGTERM')
  if (await Promise.race([ended, pause(KILL_MS, false, { ref: false })])) return
  for (const child of living) child.kill('SIGKILL')
  await ended
  throw new Error(`the daemons did not stop within ${(STOP_MS + KILL_MS) / 1000} s; killed`)
}

function greeting(directory: string, { sheep, nbd }: Ports): string {
  const uri = `nbd://127.0.0.1:${nbd}/${VOLUME}`
  return `
A sheepdog cluster of ${NODES} nodes is up on ports ${sheep.join(', ')}; its data is in ${directory}.
Attach its volume ${VOLUME} (${VOLUME_SIZE}), one at a time:

  a virtual machine   qemu-system-x86_64 -m 1G -drive file=nbd:127.0.0.1:${nbd}:exportname=${VOLUME},format=raw,if=virtio
  a block device      sudo node build/bin/dog.js nbd attach --persist -s 127.0.0.1:${nbd} ${VOLUME}
                      (outlives a restart of its sheep; sudo nbd-client -N ${VOLUME} 127.0.0.1 ${nbd} /dev/nbd0 does not)
  a copy in           nbdcopy disk.img ${uri}

Look around:          node build/bin/dog.js node list -p ${sheep[0]}
Stop:                 Ctrl-C here. Start again with the same --data to find everything as it was.
`
}

try {
  await main()
} catch (error) {
  console.error(`sheepdog: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
