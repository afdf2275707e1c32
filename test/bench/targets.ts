/**
 * The servers compared: our NBD door over one and over three nodes, qemu-nbd with two kinds of file I/O, and
 * nbdkit's file plugin, all with files on one file system and all in write-back mode.
 */
import { existsSync } from 'node:fs'
import { startCluster } from '../real/support/cluster.js'
import { type Owner, scratch } from '../real/support/owner.js'
import { SHEEP } from '../real/support/paths.js'
import { freePort } from '../real/support/ports.js'
import { type Running, run, start, tryRun, until } from '../real/support/run.js'

export interface Target {
  readonly name: string
  readonly uri: string
  readonly pids: readonly number[]
}

export interface TargetKind {
  readonly name: string
  readonly start: (owner: Owner, top: string, mebibytes: number) => Promise<Target>
}

const READY_MS = 15_000

export const TARGETS: readonly TargetKind[] = [
  { name: 'sheep-1', start: (...args) => startSheepTarget('sheep-1', 1, ...args) },
  { name: 'sheep-3', start: (...args) => startSheepTarget('sheep-3', 3, ...args) },
  { name: 'qemu-nbd', start: (...args) => startQemuNbd('qemu-nbd', 'threads', ...args) },
  {
    name: 'qemu-nbd-uring',
    start: (...args) => startQemuNbd('qemu-nbd-uring', 'io_uring', ...args),
  },
  { name: 'nbdkit', start: startNbdkit },
]

async function startSheepTarget(
  name: string,
  nodes: number,
  owner: Owner,
  top: string,
  mebibytes: number,
): Promise<Target> {
  if (!existsSync(SHEEP)) throw new Error('no build/bin/sheep.cjs; npm run build')
  const cluster = await startCluster(owner, { nodes, copies: nodes, top })
  await cluster.dog('vdi create', 'bench', `${mebibytes}M`)
  return { name, uri: cluster.uri('bench'), pids: cluster.nodes.map((node) => node.pid) }
}

async function startQemuNbd(
  name: string,
  aio: 'threads' | 'io_uring',
  owner: Owner,
  top: string,
  mebibytes: number,
): Promise<Target> {
  const { file, port } = await place(owner, top, mebibytes)
  const at = ['-b', '127.0.0.1', '-p', `${port}`]
  const how = ['-f', 'raw', '-t', '-e', '16', '--cache=writeback', `--aio=${aio}`]
  return serve(name, ['qemu-nbd', ...how, ...at, '--discard=unmap', file], port, owner)
}

async function startNbdkit(owner: Owner, top: string, mebibytes: number): Promise<Target> {
  const { file, port } = await place(owner, top, mebibytes)
  const command = ['nbdkit', '-f', '-i', '127.0.0.1', '-p', `${port}`, 'file', file]
  return serve('nbdkit', command, port, owner)
}

async function place(owner: Owner, top: string, mebibytes: number) {
  const file = `${await scratch(owner, top)}/disk`
  await run(['truncate', '-s', `${mebibytes}M`, file])
  return { file, port: await freePort() }
}

async function serve(
  name: string,
  command: readonly string[],
  port: number,
  owner: Owner,
): Promise<Target> {
  const uri = `nbd://127.0.0.1:${port}`
  const server: Running = start(command)
  owner.teardown(async () => {
    server.kill('SIGKILL')
    await server.done
  })
  const up = await until(`${name} answering`, READY_MS, async () => {
    if (server.ended()) return 'ended' as const
    return (await tryRun(['nbdinfo', '--size', uri])).code === 0 && ('up' as const)
  })
  if (up === 'ended') throw new Error((await server.done).stderr.trim())
  return { name, uri, pids: [server.pid] }
}
