/** `dog cluster recover`: lets the cluster bring its copies back by itself, or holds that off. */
import { codeText } from '../base/codes.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { force } from './cluster-force.js'
import type { Context, ThirdWord } from './command.js'
import { Exit, failed } from './failure.js'
import { clusterOption as option } from './options.js'
import { withWords } from './third-words.js'

const enable: ThirdWord = {
  name: 'enable',
  summary: 'enable automatic recovery and run once recover if necessary',
  synopsis: '',
  run: (context) => sendSwitch(context, Op.ENABLE_RECOVER, 'enable'),
}

const disable: ThirdWord = {
  name: 'disable',
  summary: 'disable automatic recovery',
  synopsis: '',
  run: (context) => sendSwitch(context, Op.DISABLE_RECOVER, 'disable'),
}

export const recover = withWords({
  name: 'recover',
  summary: 'See "dog cluster recover" for more information',
  options: [option.address, option.force, option.port, option.help, option.time],
  synopsis: '',
  words: [force, enable, disable],
})

async function sendSwitch({ out, sheep }: Context, opcode: number, word: string): Promise<number> {
  const { result } = await sheep.exchange(plainRequest({ opcode }))
  if (result !== 0) throw failed(`failed to execute request, ${codeText(result)}`)
  out.line(`Cluster recovery: ${word}`)
  return Exit.ok
}
