/** `dog vdi lock`: who holds which VDI, and taking it away from who cannot give it back. */
import { Code, codeText } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { InodeHeader } from '../model/inode.js'
import { type Vid, vidName } from '../model/oid.js'
import {
  decodeVdiState,
  type NodeId,
  VDI_STATE_BYTES,
  type VdiLock,
  type VdiState,
} from '../model/vdi-state.js'
import { LockType, Op } from '../wire/sheepdog/opcodes.js'
import { vdiRequest } from '../wire/sheepdog/requests.js'
import { nextVidOf, volumesRequest } from '../wire/sheepdog/volume-list.js'
import { reasonOf, type Sheep } from './client.js'
import type { Context, ThirdWord } from './command.js'
import { Exit, failed } from './failure.js'
import { readHeader } from './image.js'
import { isClone, isSnapshot, shownId } from './listing.js'
import { vdiOption as option, type SnapshotSelector, WORKING } from './options.js'
import { padLeft, padRight } from './output.js'
import { withWords } from './third-words.js'

const HEADER = '  Name         Id  VDI id  Tag            Owner node(s)'
/** 1.0 tells all volumes at once, or how little the room was. */
const ROOM_RECORDS_START = 512

const list: ThirdWord = {
  name: 'list',
  summary: 'list locked VDIs',
  synopsis: '',
  run: runList,
}

const unlock: ThirdWord = {
  name: 'unlock',
  summary: 'unlock locked VDI forcibly',
  synopsis: '',
  needsOperand: true,
  run: runUnlock,
}

export const lock = withWords({
  name: 'lock',
  summary: 'list or unlock locked VDIs',
  options: [option.snapshot, option.address, option.port, option.help, option.time, option.json],
  synopsis: '',
  words: [list, unlock],
})

interface LockedVdi {
  readonly vid: Vid
  readonly header: InodeHeader
  readonly lock: VdiLock
}

async function runList({ out, options, sheep }: Context): Promise<number> {
  const rows: LockedVdi[] = []
  for (const { vid, deleted, lock } of await volumeStates(sheep)) {
    if (deleted || lock.state === 'unlocked') continue
    const header = await readHeader(sheep, vid).catch((error: unknown) => {
      throw failed(`Failed to read the inode of VDI ${vidName(vid)}: ${reasonOf(error)}`)
    })
    rows.push({ vid, header, lock })
  }
  if (options.json) {
    out.json({ locks: rows.map(lockJson) })
    return Exit.ok
  }
  out.line(HEADER)
  for (const row of rows) out.line(tableRow(row))
  return Exit.ok
}

/** In 1.0 unlocking a shared lock reports success and changes nothing: here every holder is made to let go. */
async function runUnlock(context: Context): Promise<number> {
  const { operands, options, sheep } = context
  const [name = ''] = operands
  const which = options.snapshot ?? WORKING
  const vid = await sheep.lookup(name, which).catch((error: unknown) => {
    throw failed(`Failed to find VDI ${name}: ${reasonOf(error)}`)
  })
  const lock = (await volumeStates(sheep)).find((state) => state.vid === vid)?.lock
  const title = `VDI ${name} (${selectorText(which)}vid=${vidName(vid)})`
  if (lock === undefined || lock.state === 'unlocked') throw failed(`${title} is not locked`)
  if (lock.door) {
    throw failed(
      `${title} is open at a block door of ${nodeText(lock.owner!)}`,
      'It is unlocked when the client of the door disconnects, or its sheep ends',
    )
  }
  if (lock.state === 'locked') await releaseAt(sheep, vid, LockType.NORMAL)
  for (const { node } of lock.participants) await releaseShare(context, node, vid)
  return Exit.ok
}

/** A sheep gives back only what it has taken part in itself. */
async function releaseShare({ sheep }: Context, node: NodeId, vid: Vid): Promise<void> {
  const members = await sheep.nodes()
  const member = members.find(({ host, port }) => host === node.host && port === node.port)
  if (member === undefined) return
  const holder = sheep.peer(member)
  try {
    await releaseAt(holder, vid, LockType.SHARED)
  } finally {
    await holder.close()
  }
}

async function releaseAt(sheep: Sheep, vid: Vid, lockType: number): Promise<void> {
  try {
    await sheep.ask(vdiRequest({ opcode: Op.RELEASE_VDI, base: vid, lockType }))
  } catch (error) {
    const { host, port } = sheep.address
    throw failed(`Failed to unlock VDI ${vidName(vid)} at ${host}:${port}: ${reasonOf(error)}`)
  }
}

/** What the sheep knows of every volume. */
async function volumeStates(sheep: Sheep): Promise<VdiState[]> {
  const states: VdiState[] = []
  let [firstVid, room] = [0, ROOM_RECORDS_START * VDI_STATE_BYTES]
  for (;;) {
    const reply = await sheep.exchange(volumesRequest({ epoch: 0, firstVid, room }))
    if (reply.result === Code.BUFFER_SMALL && 2 * room <= LIMITS.sheepdogPayloadBytesMax) {
      room *= 2
      continue
    }
    if (reply.result !== Code.SUCCESS) {
      throw failed(`Failed to get the locks: ${codeText(reply.result)}`)
    }
    for (let at = 0; at + VDI_STATE_BYTES <= reply.body.length; at += VDI_STATE_BYTES) {
      states.push(decodeVdiState(reply.body, at))
    }
    const next = nextVidOf(reply)
    if (next <= firstVid) return states
    firstVid = next
  }
}

function tableRow({ vid, header, lock }: LockedVdi): string {
  const kind = isSnapshot(header) ? 's' : isClone(header) ? 'c' : ' '
  const name = padRight(header.name, 8)
  const id = padLeft(String(shownId(header)), 5)
  const tag = padRight(header.tag, 13)
  const start = `${kind} ${name}  ${id}  ${padLeft(vidName(vid), 6)}  ${tag} `
  if (lock.owner !== undefined) return `${start} ${nodeText(lock.owner)}`
  const shares = lock.participants.map(({ node, coherence }) => ` ${nodeText(node)}(${coherence})`)
  return start + shares.join('')
}

/** As in ZooKeeper's names (cluster spec, section 3.2). */
function nodeText({ host, port }: NodeId): string {
  return `${host.includes(':') ? 'IPv6' : 'IPv4'} ip:${host} port:${port}`
}

function selectorText({ snapId, tag }: SnapshotSelector): string {
  if (tag !== '') return `tag=${tag}, `
  return snapId === 0 ? '' : `snapid=${snapId}, `
}

/** `type`: `client` (of the sheepdog protocol), `door` (NBD and other block devices) or `shared` (multipath). */
function lockJson({ vid, header, lock }: LockedVdi): Record<string, unknown> {
  const holders =
    lock.owner === undefined
      ? lock.participants.map(({ node, coherence }) => ({ ...node, coherence }))
      : [{ host: lock.owner.host, port: lock.owner.port }]
  return {
    name: header.name,
    snapshotId: shownId(header),
    tag: header.tag,
    vid: vidName(vid),
    type: lock.state === 'shared' ? 'shared' : lock.door ? 'door' : 'client',
    holders,
  }
}
