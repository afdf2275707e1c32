/** `dog cluster recycle`: frees ids of deleted VDIs, and tells which stay taken and why (RECYCLE_VID). */
import { Code, codeText } from '../base/codes.js'
import { vidName } from '../model/oid.js'
import { decodeKept, freedOf, type KeptIds, recycleNowRequest } from '../wire/sheepdog/recycling.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed } from './failure.js'
import { clusterOption as option } from './options.js'

export const recycle: Subcommand = {
  name: 'recycle',
  summary: 'free the ids of deleted VDIs, and tell which stay taken and why',
  options: [option.address, option.port, option.help, option.time, option.json],
  synopsis: '',
  run: runRecycle,
}

async function runRecycle({ sheep, out, options }: Context): Promise<number> {
  const reply = await sheep.exchange(recycleNowRequest())
  const refusal = refusalText(reply.result)
  if (refusal !== undefined) throw failed(refusal)
  const kept = decodeKept(reply.body)
  if (kept === undefined) throw failed('The sheep sent a list that cannot be read')
  const freed = freedOf(reply)
  if (options.json) {
    const rows = kept.map(({ vid, ids, why, who }) => ({
      ...{ vid: vidName(vid), ids, reason: why },
      nodes: who.split(' ').filter(Boolean),
    }))
    out.json({ freed, kept: rows })
    return Exit.ok
  }
  out.line(`${freed} ${plural(freed)} free again`)
  for (const one of kept) {
    out.line(`${vidName(one.vid)}: ${one.ids} ${plural(one.ids)} taken: ${reasonText(one)}`)
  }
  return Exit.ok
}

function plural(ids: number): string {
  return ids === 1 ? 'id is' : 'ids are'
}

function refusalText(result: number): string | undefined {
  switch (result) {
    case Code.SUCCESS:
      return undefined
    case Code.NO_SUPPORT:
      return 'Ids are not given out again in this cluster: it was formatted without -R'
    case Code.AGAIN:
      return 'The cluster is still recovering, or removing objects: try again later'
    case Code.INVALID_PARMS:
      return 'This sheep cannot be told to free ids: it is of another release'
    default:
      return `Failed to free ids: ${codeText(result)}`
  }
}

function reasonText({ why, who }: KeptIds): string {
  switch (why) {
    case 'left':
      return 'objects are still being removed'
    case 'away':
      return who === ''
        ? 'old epochs are not on record, so nobody knows who may have objects'
        : `${who}, away now, may have objects`
    case 'refused':
      return `a client of ${who} may remember the VDI`
    case 'not-yet':
      return `${who} is busy, or has started less than a minute ago and clients may come back`
    case 'behind':
      return 'VDIs in use are looked for behind'
  }
}
