/** `dog node vnodes set`: how much of the data one sheep takes, where the cluster does not compute it. */
import { codeText } from '../base/codes.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { Context, ThirdWord } from './command.js'
import { EXIT_REFUSED, Exit, Failure } from './failure.js'
import { nodeOption as option } from './options.js'
import { withWords } from './third-words.js'

const VNODES_MAX = 65535
const SYNOPSIS = '<num of vnodes>'

const set: ThirdWord = {
  name: 'set',
  summary: 'set new vnodes',
  synopsis: SYNOPSIS,
  needsOperand: true,
  run: runSet,
}

export const vnodes = withWords({
  name: 'vnodes',
  summary: 'set new vnodes',
  options: [option.address, option.port, option.help],
  synopsis: SYNOPSIS,
  words: [set],
})

async function runSet({ operands, out, sheep }: Context): Promise<number> {
  const [text = ''] = operands
  const number = Number(text)
  if (!/^\d+$/.test(text) || number < 1 || number > VNODES_MAX) {
    const range = `must be an integer between 1 and ${VNODES_MAX}`
    throw new Failure(Exit.usage, [`Invalid number of vnodes '${text}': ${range}`])
  }
  const body = Buffer.alloc(4)
  body.writeInt32LE(number)
  const head = plainRequest({ opcode: Op.SET_VNODES, flags: Flag.WRITE, dataLength: 4 })
  const { result } = await sheep.exchange(head, body)
  if (result === 0) return Exit.ok
  out.error(`Response's result: ${codeText(result)}`)
  throw new Failure(EXIT_REFUSED, ['Failed to execute request'])
}
