/**
 * The files compared by `--sheepfs`, all on one file system: `disk.raw` of a mount of one node and of three; the same sheep's volume
 * through nbdfuse, a C program on libfuse 3, which with -s does one request after the other (as sheepdog 1.0's sheepfs does for
 * one reader); and bindfs, which passes requests on to the file system and has no cluster behind it.
 */
import { mkdir, readFile } from 'node:fs/promises'
import { startCluster, type TestCluster } from '../real/support/cluster.js'
import { mountCluster } from '../real/support/mount.js'
import { type Owner, scratch } from '../real/support/owner.js'
import { type Running, run, start, tryRun, until } from '../real/support/run.js'

const READY_MS = 15_000

export interface FileTarget {
  readonly name: string
  readonly path: string
  /** Of everything between fio and the disk, sheep included. */
  readonly pids: readonly number[]
}

export interface MountPlan {
  readonly owner: Owner
  readonly top: string
  readonly mebibytes: number
}

export async function startFileTargets(plan: MountPlan): Promise<FileTarget[]> {
  const { owner, top } = plan
  const one = await startCluster(owner, { nodes: 1, copies: 1, top })
  return [
    await sheepfsTarget('sheepfs-1', one, plan),
    await sheepfsTarget('sheepfs-3', await startCluster(owner, { copies: 3, top }), plan),
    await nbdfuseTarget('nbdfuse -s', one, ['-s'], plan),
    await nbdfuseTarget('nbdfuse', one, [], plan),
    await bindfsTarget(plan),
  ]
}

async function sheepfsTarget(
  name: string,
  cluster: TestCluster,
  { owner, mebibytes }: MountPlan,
): Promise<FileTarget> {
  await cluster.dog('vdi create', name, `${mebibytes}M`)
  const mount = await mountCluster(owner, cluster)
  const pids = [mount.running.pid, ...cluster.nodes.map(({ pid }) => pid)]
  return { name, path: mount.disk(name), pids }
}

async function nbdfuseTarget(
  name: string,
  cluster: TestCluster,
  more: readonly string[],
  { owner, mebibytes }: MountPlan,
): Promise<FileTarget> {
  const vdi = name.replace(' ', '')
  await cluster.dog('vdi create', vdi, `${mebibytes}M`)
  const at = `${cluster.directory}/${vdi}`
  const words = ['nbdfuse', ...more, `${at}/disk.raw`, cluster.uri(vdi)]
  const running = await mounted(owner, at, words)
  return { name, path: `${at}/disk.raw`, pids: [running.pid, cluster.node(0).pid] }
}

async function bindfsTarget({ owner, top, mebibytes }: MountPlan): Promise<FileTarget> {
  const directory = await scratch(owner, top)
  await mkdir(`${directory}/disks`)
  await run(['truncate', '-s', `${mebibytes}M`, `${directory}/disks/disk.raw`])
  const { at, running } = await mountPassthrough(owner, directory, 'disks')
  return { name: 'bindfs', path: `${at}/disk.raw`, pids: [running.pid] }
}

let mounts = 0

/** What is called `name` in the directory, seen through libfuse at `at`. */
export async function mountPassthrough(
  owner: Owner,
  directory: string,
  name: string,
): Promise<{ readonly at: string; readonly running: Running }> {
  const at = `${directory}/through${++mounts}`
  const words = ['bindfs', '-f', '--multithreaded', `${directory}/${name}`, at]
  return { at, running: await mounted(owner, at, words) }
}

/** What `words` mount at the directory, which is made for it; unmounted with its owner. */
async function mounted(owner: Owner, at: string, words: readonly string[]): Promise<Running> {
  await mkdir(at)
  const running = start(words)
  owner.teardown(async () => {
    running.kill('SIGKILL')
    await running.done
    await tryRun(['umount', '-fl', at])
  })
  await until(`a mount at ${at}`, READY_MS, async () => {
    if (running.ended()) throw new Error((await running.done).stderr.trim())
    return (await readFile('/proc/self/mounts', 'utf8')).includes(` ${at} fuse`)
  })
  return running
}
