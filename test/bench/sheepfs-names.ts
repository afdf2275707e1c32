/** What looking at ten thousand VDIs costs: listings, look-ups, making and removing, on a mount that was never looked at before. */
import { mkdirSync, rmdirSync, statSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { performance } from 'node:perf_hooks'
import { cString } from '../../src/base/bytes.js'
import { silentLog } from '../../src/base/log.js'
import { NAME_BYTES } from '../../src/model/inode.js'
import { SheepClient } from '../../src/peer/client.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { vdiRequest } from '../../src/wire/sheepdog/requests.js'
import { NodeClock } from '../../src/world/node/clock.js'
import { NodeNetwork } from '../../src/world/node/network.js'
import { startCluster, type TestCluster } from '../real/support/cluster.js'
import { mountCluster } from '../real/support/mount.js'
import { type Owner, scratch } from '../real/support/owner.js'
import { pause, run } from '../real/support/run.js'
import { mountPassthrough } from './sheepfs-mounts.js'

const VDI_BYTES = 64 * 1024 * 1024
/** NEW_VDI requests under way: the cluster does one after the other, but need not wait for us. */
const CREATIONS_AT_ONCE = 8
/** Longer than the kernel believes names: what comes next is asked for again. */
const FORGOTTEN_MS = 1_200
const MADE = 100

export interface NamesPlan {
  readonly owner: Owner
  readonly top: string
  readonly vdis: number
  readonly say: (line: string) => void
}

/** Milliseconds for a whole listing, or operations a second. */
export interface NamesRow {
  readonly job: string
  readonly unit: 'ms' | 'ops/s'
  readonly value: number
}

export interface NamesTarget {
  readonly name: string
  /** On a fresh mount each time. */
  readonly measure: () => Promise<NamesRow[]>
}

export async function startNamesTargets(plan: NamesPlan): Promise<NamesTarget[]> {
  const { owner, top } = plan
  const cluster = await startCluster(owner, { copies: 3, top })
  await createVdis(cluster, plan)
  const directory = await scratch(owner, top)
  for (const name of namesOf(plan)) {
    await mkdir(`${directory}/vdi/${name}`, { recursive: true })
  }
  return [
    { name: 'sheepfs-3', measure: () => onceOn(owner, (once) => sheepfsRows(once, cluster, plan)) },
    { name: 'bindfs', measure: () => onceOn(owner, (once) => bindfsRows(once, directory, plan)) },
  ]
}

function namesOf({ vdis }: Pick<NamesPlan, 'vdis'>): string[] {
  return Array.from({ length: vdis }, (_, i) => `guest-${String(i).padStart(6, '0')}`)
}

async function createVdis(cluster: TestCluster, plan: NamesPlan): Promise<void> {
  const { host, port } = cluster.node(0)
  const world = { clock: new NodeClock(), network: new NodeNetwork(silentLog) }
  const client = await SheepClient.connect(world, { host, port })
  const left = namesOf(plan)
  const began = performance.now()
  const worker = async (): Promise<void> => {
    for (let name = left.shift(); name !== undefined; name = left.shift()) {
      const payload = cString(name, NAME_BYTES)
      const head = vdiRequest({
        ...{ opcode: Op.NEW_VDI, flags: Flag.WRITE, dataLength: payload.length },
        sizeBytes: VDI_BYTES,
      })
      const { result } = await client.call(head, payload)
      if (result !== 0) throw new Error(`${name}: NEW_VDI gives ${result}`)
    }
  }
  await Promise.all(Array.from({ length: CREATIONS_AT_ONCE }, worker))
  client.close()
  const seconds = (performance.now() - began) / 1000
  plan.say(`${plan.vdis} VDIs made in ${seconds.toFixed(1)} s`)
}

/** What is started for one measurement ends with it. */
async function onceOn<T>(owner: Owner, use: (once: Owner) => Promise<T>): Promise<T> {
  const ends: (() => Promise<void>)[] = []
  const once: Owner = {
    passed: true,
    teardown: (end) => void ends.push(end),
    log: (text) => owner.log(text),
  }
  try {
    return await use(once)
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

async function sheepfsRows(
  once: Owner,
  cluster: TestCluster,
  plan: NamesPlan,
): Promise<NamesRow[]> {
  const mount = await mountCluster(once, cluster)
  const rows = await namesRows(mount.path('vdi'), namesOf(plan))
  const disks = operations(namesOf(plan), (name) => statSync(mount.disk(name)))
  await mount.unmount()
  return [...rows, { job: 'stat each disk.raw', unit: 'ops/s', value: disks }]
}

async function bindfsRows(once: Owner, directory: string, plan: NamesPlan): Promise<NamesRow[]> {
  const { at } = await mountPassthrough(once, directory, 'vdi')
  return namesRows(at, namesOf(plan))
}

async function namesRows(at: string, names: readonly string[]): Promise<NamesRow[]> {
  const rows: NamesRow[] = []
  const time = async (job: string, words: readonly string[]): Promise<void> => {
    const { wallMs } = await run([...words, at])
    rows.push({ job, unit: 'ms', value: wallMs })
    await pause(FORGOTTEN_MS)
  }
  await time('ls, first', ['ls'])
  await time('ls, again', ['ls'])
  await time('ls -l', ['ls', '-l'])
  const rate = async (job: string, some: readonly string[], each: (name: string) => void) => {
    rows.push({ job, unit: 'ops/s', value: operations(some, each) })
    await pause(FORGOTTEN_MS)
  }
  await rate('stat each', names, (name) => void statSync(`${at}/${name}`))
  const fresh = Array.from({ length: MADE }, (_, i) => `fresh-${i}`)
  await rate('mkdir', fresh, (name) => mkdirSync(`${at}/${name}`))
  await rate('rmdir', fresh, (name) => rmdirSync(`${at}/${name}`))
  return rows
}

/** A second, one after the other. */
function operations(names: readonly string[], each: (name: string) => void): number {
  const began = performance.now()
  for (const name of names) each(name)
  return names.length / ((performance.now() - began) / 1000)
}
