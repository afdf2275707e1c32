/** `dog node log level`: how much one sheep writes into its log, looked at and changed while it runs. */
import { LOG_LEVELS } from '../base/log.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { reasonOf } from './client.js'
import type { Context, ThirdWord } from './command.js'
import { EXIT_REFUSED, Exit, Failure, failed } from './failure.js'
import { subcommandHelp } from './help.js'
import { nodeOption as option } from './options.js'
import { withWords } from './third-words.js'

const LEVELS: readonly string[] = LOG_LEVELS

const options = [option.address, option.port, option.help, option.time, option.json]

const level: ThirdWord = {
  name: 'level',
  summary: 'manipulate loglevel',
  synopsis: '',
  needsOperand: true,
  run: runLevel,
}

export const log = withWords({
  name: 'log',
  summary: 'See "dog node log" for more information',
  options,
  synopsis: '',
  words: [level],
})

async function runLevel(context: Context): Promise<number> {
  const [verb, wanted] = context.operands
  switch (verb) {
    case 'get':
      return await runGet(context)
    case 'list':
      return runList(context)
    case 'set':
      if (wanted !== undefined) return await runSet(context, wanted)
      return misusedAs(context, 'log level set')
    default:
      return misusedAs(context, 'log level')
  }
}

function misusedAs({ out }: Context, name: string): number {
  const sub = { name, summary: '', options, synopsis: '', run: runLevel }
  out.text(subcommandHelp({ name: 'node', subcommands: [] }, sub))
  return Exit.usage
}

/** As in 1.0 the answer of a person's question goes to stderr; --json goes to stdout. */
async function runGet({ options: given, out, sheep }: Context): Promise<number> {
  const head = plainRequest({ opcode: Op.GET_LOGLEVEL, dataLength: 4 })
  const { body } = await sheep.ask(head).catch((error: unknown) => {
    throw failed(`Response's result: ${reasonOf(error)}`)
  })
  if (body.length < 4) throw failed('The sheep sent a log level cut short')
  const number = body.readInt32LE(0)
  const name = LEVELS[number] ?? 'unknown'
  if (given.json) out.json({ level: name, number })
  else out.error(`${name} (${number})`)
  return Exit.ok
}

function runList({ options: given, out }: Context): number {
  if (given.json) out.json(LEVELS.map((name, number) => ({ level: name, number })))
  else for (const line of levelLines()) out.error(line)
  return Exit.ok
}

function levelLines(): string[] {
  return LEVELS.map((name, number) => `${name}\t(${number})`)
}

async function runSet({ sheep }: Context, wanted: string): Promise<number> {
  const number = LEVELS.indexOf(wanted)
  if (number < 0) {
    const lines = [`invalid loglevel: ${wanted}`, 'available loglevels:', ...levelLines()]
    throw new Failure(EXIT_REFUSED, lines)
  }
  const body = Buffer.alloc(4)
  body.writeInt32LE(number)
  const head = plainRequest({ opcode: Op.SET_LOGLEVEL, flags: Flag.WRITE, dataLength: 4 })
  await sheep.ask(head, body).catch((error: unknown) => {
    throw failed(`Response's result: ${reasonOf(error)}`)
  })
  return Exit.ok
}
