/** `dog cluster reweight`: every node measures its disks and announces them anew where they have changed. */
import { codeText } from '../base/codes.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed } from './failure.js'
import { clusterOption as option } from './options.js'

export const reweight: Subcommand = {
  name: 'reweight',
  summary: 'reweight the cluster',
  options: [option.address, option.port, option.help, option.time],
  synopsis: '',
  run: runReweight,
}

async function runReweight({ sheep }: Context): Promise<number> {
  const { result } = await sheep.exchange(plainRequest({ opcode: Op.REWEIGHT }))
  if (result === 0) return Exit.ok
  throw failed(`Response's result: ${codeText(result)}`, 'failed to execute request')
}
