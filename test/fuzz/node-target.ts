/**
 * The same bytes for whole nodes in one process, on the virtual clock. They may do what any client may do, down to
 * removing every volume; what they must not do is end a node, make a handler fail on its own mistake, or leave the
 * cluster unable to serve the next client.
 */
import { ClusterFlag, Op } from '../../src/wire/sheepdog/opcodes.js'
import type { Connection } from '../../src/world/world.js'
import type { Dice } from '../faults/dice.js'
import { ask, newVdi, vdi } from '../unit/support/sheep-wire.js'
import { SmallCluster } from '../unit/support/small-cluster.js'
import { chunksOf, conversation } from './mutate.js'

const FRAMES_PER_CONNECTION = 30
/** Then a new cluster: what the requests make (objects, volumes) is theirs to keep. */
const FRAMES_PER_CLUSTER = 3_000
const CONNECTIONS_AT_ONCE = 4
const THINK_MS = 50

/**
 * These end nodes, or all there is, because they were asked to; and whoever greets in the name of a member shuts it out.
 * There is no authentication (defect P5, which stays).
 */
const DEADLY: readonly number[] = [Op.KILL_NODE, Op.SHUTDOWN, Op.MAKE_FS, Op.HELLO]

export async function fuzzNodes(dice: Dice, frames: number): Promise<{ clusters: number }> {
  let clusters = 0
  for (let sent = 0; sent < frames; sent += FRAMES_PER_CLUSTER, clusters++) {
    await oneCluster(dice.fork(), Math.min(FRAMES_PER_CLUSTER, frames - sent))
  }
  return { clusters }
}

async function oneCluster(dice: Dice, frames: number): Promise<void> {
  const cluster = await SmallCluster.start({
    ...{ seed: dice.below(2 ** 31), flags: dice.below(2) === 0 ? ClusterFlag.RECYCLE_VID : 0 },
  })
  try {
    const client = await cluster.client(0)
    await newVdi(client, 'Alice', 16 << 20)
    let left = frames
    while (left > 0) {
      const open: Connection[] = []
      for (let i = 0; i < CONNECTIONS_AT_ONCE && left > 0; i++, left -= FRAMES_PER_CONNECTION) {
        open.push(await converse(cluster, dice, Math.min(FRAMES_PER_CONNECTION, left)))
      }
      await cluster.clock.sleep(THINK_MS)
      for (const connection of open) connection.destroy()
    }
    await isFine(cluster)
  } finally {
    cluster.close()
  }
}

async function converse(cluster: SmallCluster, dice: Dice, frames: number): Promise<Connection> {
  const index = dice.below(cluster.machines.length)
  const { host, port } = cluster.machines[index]!.self
  const connection = await cluster.card(index).connect({ host, port }, 1_000)
  let isOpen = true
  connection.on({
    data: () => undefined,
    drain: () => undefined,
    close: () => {
      isOpen = false
    },
  })
  for (const frame of conversation(dice, frames)) {
    if (frame.length > 1 && DEADLY.includes(frame[1]!)) continue
    for (const chunk of chunksOf(frame, dice)) if (isOpen) connection.write(chunk)
    // A cut frame swallows the next ones; a deadly number in there is a payload's byte, or starts a new connection.
    if (isCut(frame)) break
  }
  await cluster.clock.sleep(dice.below(THINK_MS))
  return connection
}

/** Less, or more, than it says: where the next frame begins is open. */
function isCut(frame: Buffer): boolean {
  if (frame.length < 48) return true
  const length = (frame[2]! & 1) === 0 ? 0 : frame.readUInt32LE(12)
  return frame.length !== 48 + length
}

async function isFine(cluster: SmallCluster): Promise<void> {
  // Somebody may have asked for an end of all recovery: that is no fault.
  const last = await cluster.client(0)
  await ask(last, Op.ENABLE_RECOVER)
  await cluster.settle().catch((error: unknown) => {
    throw new Error(`${String(error)}\n${cluster.up().map((index) => restless(cluster, index))}`)
  })
  const failed = cluster.logged.filter((line) => line.includes('request.failed'))
  const faults = [...cluster.failures(), ...failed]
  if (faults.length > 0) throw new Error(faults.slice(0, 5).join('\n'))
  if (cluster.up().length !== cluster.machines.length) throw new Error('a node has ended')
  for (const index of cluster.up()) {
    const client = await cluster.client(index)
    const { result } = await vdi(client, Op.GET_VDI_INFO, 'nobody has this name')
    if (result !== 8) throw new Error(`node ${index} answers ${result}`)
    const { local } = cluster.node(index)
    if (local.parked > 0)
      throw new Error(`${local.parked} requests wait for a connection that ended`)
  }
}

/** What keeps a node from rest. */
function restless(cluster: SmallCluster, index: number): string {
  const { state, recovery, reclaim } = cluster.node(index)
  const { inRecovery } = recovery.progress()
  const { status, epoch, members } = state
  return JSON.stringify({
    status,
    epoch,
    members: members.length,
    inRecovery,
    backlog: reclaim.backlog,
  })
}
