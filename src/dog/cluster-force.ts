/**
 * `dog cluster recover force`: starts a cluster without the nodes it waits for. What they alone know is given up, so
 * the command says first which nodes those are and what that can cost (defect C26).
 */
import { Code, codeText } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import { NODE_BYTES, nodeKey, type SdNode } from '../model/node.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { Context, ThirdWord } from './command.js'
import { Exit, failed } from './failure.js'
import { confirm } from './prompt.js'

const QUESTION =
  'Caution! Please try starting all the cluster nodes normally before\n' +
  'running this command.\n\n' +
  'The cluster may need to be force recovered if:\n' +
  '  - the master node fails to start because of epoch mismatch; or\n' +
  '  - some nodes fail to start after a cluster shutdown.\n\n' +
  'Are you sure you want to continue? [yes/no]: '

export const force: ThirdWord = {
  name: 'force',
  summary: 'force recover cluster immediately',
  synopsis: '',
  run: runForce,
}

async function runForce(context: Context): Promise<number> {
  const { options, out, sheep } = context
  const members = await sheep.nodes()
  const info = await sheep.clusterInfo().catch(() => undefined)
  const isWaiting = info?.status === 'wait' && info.epoch > 0
  if (isWaiting) for (const line of warning(info, members)) out.error(line)
  if (!options.force) await confirm(context, QUESTION)
  const dataLength = LIMITS.nodesMax * NODE_BYTES
  const { result } = await sheep.exchange(plainRequest({ opcode: Op.FORCE_RECOVER, dataLength }))
  if (result !== Code.SUCCESS) throw failed(`failed to execute request, ${codeText(result)}`)
  if (isWaiting) {
    out.error(
      `Epoch ${info.epoch + 1} begins. Objects taken from older copies are named in the sheep.log ` +
        "of each node ('object.older-copy'), those without any copy as 'object.perhaps-lost'.",
    )
  }
  return Exit.ok
}

/** Storage nodes of the epoch that are not members now. */
export function missingNodes(epoch: readonly SdNode[], members: readonly SdNode[]): SdNode[] {
  const present = new Set(members.map(nodeKey))
  return epoch.filter((node) => !present.has(nodeKey(node)))
}

function warning(info: ClusterInfo, members: readonly SdNode[]): string[] {
  const missing = missingNodes(info.nodes, members)
  const storing = missing.filter(({ vnodes }) => vnodes > 0)
  const zones = new Set(storing.map(({ zone }) => zone)).size
  const names = missing.map(nodeKey).join(', ')
  const first = `Missing nodes of epoch ${info.epoch}: ${missing.length === 0 ? 'none' : names}`
  if (zones === 0) return [first, 'None of them stores objects: nothing is lost.']
  const left = info.nodes.some(({ vnodes }) => vnodes > 0) && storing.length < storers(info)
  const spared = `Volumes with more than ${zones} copies, or ${zones} parity strips or more,`
  const safe = left
    ? `${spared} lose nothing that was acknowledged. Of others, objects`
    : 'No node is left that was there at the end: objects'
  return [
    first,
    `${safe} whose newest copies are all on missing nodes go back to older copies, or are lost.`,
    'A missing node that is started later brings nothing back that has been decided by then.',
  ]
}

function storers(info: ClusterInfo): number {
  return info.nodes.filter(({ vnodes }) => vnodes > 0).length
}
