/** `dog vdi cache` as in 0.9: the object cache of the sheep that is asked. */
import { Code } from '../base/codes.js'
import { inodeOid, type Vid, vidName } from '../model/oid.js'
import {
  CACHE_INFO_BYTES,
  type CacheInfo,
  decodeCacheInfo,
  deleteCacheMessage,
} from '../wire/sheepdog/cache.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { objectRequest, plainRequest } from '../wire/sheepdog/requests.js'
import type { Context, ThirdWord } from './command.js'
import { Exit, Failure, failed, misused } from './failure.js'
import { hasCode, openFailure, readHeader } from './image.js'
import { isSnapshot } from './listing.js'
import { vdiOption as option, WORKING } from './options.js'
import { confirm } from './prompt.js'
import { sizeText } from './sizes.js'
import { withWords } from './third-words.js'

const PURGE_QUESTION = 'This operation purges the cache of all the vdi. Continue? [yes/no]: '

const flush: ThirdWord = {
  name: 'flush',
  summary: 'flush the cache of the vdi specified',
  synopsis: '<vdiname>',
  run: async (context) => {
    const { name, vid } = await named(context)
    await refusing(context, `flush the cache of ${name}`, () => context.sheep.flush(vid))
    return Exit.ok
  },
}

const remove: ThirdWord = {
  name: 'delete',
  summary: 'delete the cache of the vdi specified in all nodes; what was not flushed is lost',
  synopsis: '<vdiname>',
  run: async (context) => {
    const { name, vid } = await named(context)
    const { head } = deleteCacheMessage(vid)
    await refusing(context, `delete the cache of ${name}`, () => context.sheep.ask(head))
    return Exit.ok
  },
}

const purge: ThirdWord = {
  name: 'purge',
  summary: 'purge the cache of this node; what was not flushed is lost',
  synopsis: '[vdiname]',
  run: async (context) => {
    const { operands, options, sheep } = context
    if (operands.length === 0 && !options.force) await confirm(context, PURGE_QUESTION)
    const one = operands.length === 0 ? undefined : (await named(context)).vid
    const head =
      one === undefined
        ? plainRequest({ opcode: Op.CACHE_PURGE })
        : objectRequest({ opcode: Op.CACHE_PURGE, flags: Flag.WRITE, oid: inodeOid(one) })
    await refusing(context, 'purge the cache', () => sheep.ask(head))
    return Exit.ok
  },
}

const info: ThirdWord = {
  name: 'info',
  summary: 'show usage of the cache',
  synopsis: '',
  run: runInfo,
}

export const cache = withWords({
  name: 'cache',
  summary: 'run cache manipulation',
  options: [
    option.snapshot,
    option.address,
    option.port,
    option.force,
    option.help,
    option.time,
    option.json,
  ],
  synopsis: '<vdiname>',
  words: [flush, remove, purge, info],
})

async function named({ operands, options, sheep }: Context): Promise<{ name: string; vid: Vid }> {
  const [name] = operands
  if (name === undefined) throw misused('please specify VDI name')
  const which = options.snapshot ?? WORKING
  try {
    return { name, vid: await sheep.lookup(name, which) }
  } catch (error) {
    throw openFailure(name, which, error)
  }
}

/** Runs `ask`; a sheep without a cache is told apart from one that fails. */
async function refusing<Result>(
  { sheep }: Context,
  what: string,
  ask: () => Promise<Result>,
): Promise<Result> {
  try {
    return await ask()
  } catch (error) {
    const { host, port } = sheep.address
    if (hasCode(error, Code.NO_CACHE, Code.INVALID_PARMS)) {
      const why = `${host}:${port} has no object cache: start it with -w size=S`
      throw failed(`Failed to ${what}: ${why}`)
    }
    if (!(error instanceof Error)) throw error
    throw new Failure(Exit.system, [`Failed to ${what}: ${error.message}`])
  }
}

interface Row {
  readonly vid: Vid
  readonly name: string
  readonly tag: string
  readonly totalBytes: number
  readonly dirtyBytes: number
}

async function runInfo(context: Context): Promise<number> {
  const { out, options, sheep } = context
  const head = plainRequest({ opcode: Op.GET_CACHE_INFO, dataLength: CACHE_INFO_BYTES })
  const reply = await refusing(context, 'get the cache information', () => sheep.ask(head))
  const found = decodeCacheInfo(reply.body)
  const rows: Row[] = []
  for (const volume of found.volumes) rows.push(await rowOf(context, volume))
  if (options.json) {
    out.json({
      sizeBytes: found.sizeBytes,
      usedBytes: found.usedBytes,
      directio: found.directio,
      vdis: rows.map(({ vid, ...row }) => ({ ...row, vid: vidName(vid) })),
    })
    return Exit.ok
  }
  out.line('Name\tTag\tTotal\tDirty\tClean')
  for (const { name, tag, totalBytes, dirtyBytes } of rows) {
    const sizes = [totalBytes, dirtyBytes, totalBytes - dirtyBytes].map(sizeText)
    out.line([name, tag, ...sizes].join('\t'))
  }
  const kind = found.directio ? 'directio' : 'non-directio'
  out.line('')
  out.line(`Cache size ${sizeText(found.sizeBytes)}, used ${sizeText(found.usedBytes)}, ${kind}`)
  return Exit.ok
}

async function rowOf(
  { sheep }: Context,
  { vid, dirty, total }: CacheInfo['volumes'][number],
): Promise<Row> {
  const header = await readHeader(sheep, vid)
  const objectBytes = 2 ** header.blockSizeShift
  return {
    vid,
    name: header.name,
    tag: isSnapshot(header) ? header.tag : '',
    totalBytes: total * objectBytes,
    dirtyBytes: dirty * objectBytes,
  }
}
