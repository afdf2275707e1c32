/** Taking disks of this node in and out (protocol spec, section 10: MD_PLUG and MD_UNPLUG). */
import { Code, codeOf } from '../../base/codes.js'
import { failed, type Reply } from '../../sheep/answer.js'
import type { NodeDisks } from '../../sheep/node-disks.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import type { Operation, OperationTable } from './context.js'

/** More disks than any machine has: each one may wait for a turn in the cluster. */
const DISKS_MAX = 64
const PATH_BYTES_MAX = 4096

/** Paths of a request; undefined when it names none, too many, or one that can be no path. */
export function decodeDiskPaths(body: Buffer): string[] | undefined {
  if (body.length > DISKS_MAX * PATH_BYTES_MAX) return undefined
  const end = body.indexOf(0)
  const text = body.subarray(0, end < 0 ? undefined : end).toString('utf8')
  const paths = text.split(',').filter((path) => path !== '')
  const isSane = paths.length > 0 && paths.length <= DISKS_MAX
  return isSane && paths.every((path) => path.length < PATH_BYTES_MAX) ? paths : undefined
}

function change(act: (disks: NodeDisks, paths: readonly string[]) => Promise<Code>): Operation {
  const run: Operation['run'] = ({ node }, request: Frame, reply: Reply) => {
    const paths = decodeDiskPaths(request.body)
    if (paths === undefined) {
      reply(failed(Code.INVALID_PARMS))
      return
    }
    act(node.disks, paths).then(
      (code) => reply(failed(code)),
      (error: unknown) => reply(failed(codeOf(error))),
    )
  }
  return { force: false, run }
}

export const DISK_OPERATIONS: OperationTable = new Map([
  [Op.MD_PLUG, change((disks, paths) => disks.plug(paths))],
  [Op.MD_UNPLUG, change((disks, paths) => disks.unplug(paths))],
])
