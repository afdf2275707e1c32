/** The noun `cluster`: shutdown, and the table of its subcommands. */

import { codeText } from '../base/codes.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { alterCluster } from './alter-copy.js'
import { format } from './cluster-format.js'
import { info } from './cluster-info.js'
import { recover } from './cluster-recover.js'
import { recycle } from './cluster-recycle.js'
import { reweight } from './cluster-reweight.js'
import type { Context, Noun, Subcommand } from './command.js'
import { Exit, Failure } from './failure.js'
import { clusterOption as option } from './options.js'
import { clusterCheck } from './vdi-check.js'

const shutdown: Subcommand = {
  name: 'shutdown',
  summary: 'stop Sheepdog',
  options: [option.address, option.port, option.help, option.time],
  synopsis: '',
  run: runShutdown,
}

export const cluster: Noun = {
  name: 'cluster',
  subcommands: [info, format, shutdown, recover, reweight, recycle, clusterCheck, alterCluster],
}

async function runShutdown({ sheep }: Context): Promise<number> {
  const fail = (...lines: string[]): Failure =>
    new Failure(Exit.failed, [...lines, 'failed to execute request'])
  const reply = await sheep.exchange(plainRequest({ opcode: Op.SHUTDOWN })).catch(() => {
    throw fail()
  })
  if (reply.result !== 0) throw fail(`Response's result: ${codeText(reply.result)}`)
  return Exit.ok
}
