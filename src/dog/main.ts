/**
 * The program `dog`: finds the subcommand, reads its options, runs it and turns the outcome into
 * an exit status.
 */
import { SheepError } from '../base/codes.js'
import { Sheep } from './client.js'
import { cluster } from './cluster.js'

import type { Context, DogIo, DogWorld, Environment, Noun, Subcommand } from './command.js'
import { completionOf } from './completion.js'
import { logStamp } from './dates.js'
import { Exit, Failure, failed } from './failure.js'
import { parseArguments } from './getopt.js'
import { available, HINT, overview, subcommandHelp, title } from './help.js'
import { nbd } from './nbd.js'
import { node } from './node.js'
import { parsePort } from './options.js'
import { Output } from './output.js'
import { LineReader } from './prompt.js'
import { findThirdWord } from './third-words.js'
import { vdi } from './vdi.js'

const DEFAULT_ADDRESS = '127.0.0.1'
const DEFAULT_PORT = 7000

/** In the order of the overview. */
const OF_CLUSTERS: readonly Noun[] = [vdi, node, cluster, nbd]
export const NOUNS: readonly Noun[] = [...OF_CLUSTERS, completionOf(OF_CLUSTERS)]

const VERSION_WORDS: readonly (string | undefined)[] = ['version', '--version', '-V']
const HELP_WORDS: readonly (string | undefined)[] = [undefined, 'help', '--help', '-h']

/**
 * One run. `argv`: the words after `dog`. Resolves with the exit status (dog spec, section 1)
 * when everything was printed; never rejects.
 */
export async function dogMain(
  argv: readonly string[],
  env: Environment,
  io: DogIo,
  world: DogWorld,
): Promise<number> {
  const out = new Output(io.stdout, io.stderr)
  const status = await guarded(out, () => dispatch(argv, env, { out, io, world }))
  const flushed = await guarded(out, async () => {
    await out.flush()
    return Exit.ok
  })
  return flushed === Exit.ok ? status : flushed
}

/** Nothing a command throws gets past here: it is told on stderr and becomes a status. */
async function guarded(out: Output, run: () => Promise<number>, helpText = ''): Promise<number> {
  try {
    return await run()
  } catch (error) {
    if (error instanceof Failure) {
      for (const line of error.lines) out.error(line)
      if (error.showHelp) out.text(helpText)
      return error.status
    }
    if (error instanceof SheepError) {
      out.error(`Response's result: ${error.message}`)
      return Exit.failed
    }
    out.error(`dog: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    return Exit.system
  }
}

interface Surroundings {
  readonly out: Output
  readonly io: DogIo
  readonly world: DogWorld
}

async function dispatch(
  argv: readonly string[],
  env: Environment,
  around: Surroundings,
): Promise<number> {
  const [nounName, subName, ...args] = argv
  if (HELP_WORDS.includes(nounName)) {
    around.out.text(overview(NOUNS, around.io.version))
    return Exit.ok
  }
  if (VERSION_WORDS.includes(nounName)) {
    around.out.text(`${title(around.io.version)}\n`)
    return Exit.ok
  }
  const noun = NOUNS.find((one) => one.name === nounName)
  if (noun === undefined) throw new Failure(Exit.usage, [`Invalid command '${nounName}'`, HINT])
  const sub = noun.subcommands.find((one) => one.name === subName)
  if (sub === undefined) {
    const wrong = HELP_WORDS.includes(subName) ? [] : [`Invalid command '${nounName} ${subName}'`]
    throw new Failure(Exit.usage, [...wrong, ...available(noun)])
  }
  const helpText = subcommandHelp(noun, sub)
  return await guarded(
    around.out,
    async () => {
      const parsed = parseArguments(args, sub.options)
      if (parsed.options.help) {
        around.out.text(helpText)
        return Exit.ok
      }
      await record(argv, env, around)
      if (sub.words === undefined)
        return await runTimed(sub, { ...around, ...parsed }, env, helpText)
      const found = findThirdWord(sub, parsed.operands)
      if (found === undefined) {
        around.out.text(helpText)
        return parsed.operands.length === 0 ? Exit.usage : Exit.failed
      }
      const { operands } = found
      const help = subcommandHelp(noun, found.sub)
      return await runTimed(found.sub, { ...around, ...parsed, operands }, env, help)
    },
    helpText,
  )
}

/** SHEEPDOG_DOG_LOG: whoever administers the cluster wants to know who did what. */
async function record(
  argv: readonly string[],
  env: Environment,
  { out, io, world }: Surroundings,
): Promise<void> {
  if (env.SHEEPDOG_DOG_LOG === undefined) return
  const path = env.SHEEPDOG_DOG_LOG_PATH
  const words = ['dog', ...argv].join(' ')
  const stamp = logStamp(Math.floor(world.clock.now() / 1000))
  try {
    await io.record(path === undefined ? words : `${stamp} :  ${words}`, path)
  } catch (error) {
    out.error(`Failed to log the operation: ${error instanceof Error ? error.message : error}`)
  }
}

type Parsed = Surroundings & Pick<Context, 'options' | 'operands'>

async function runTimed(
  sub: Subcommand,
  parsed: Parsed,
  env: Environment,
  helpText: string,
): Promise<number> {
  const { out, io, world, options, operands } = parsed
  if (sub.needsOperand && operands.length === 0) {
    out.text(helpText)
    return Exit.usage
  }
  const sheep = new Sheep(world, out, await sheepAddress(parsed, env))
  const lines = new LineReader(() => io.stdin)
  const start = world.clock.now()
  const context: Context = { ...parsed, sheep, lines }
  try {
    const status = await guarded(out, () => sub.run(context), helpText)
    if (options.time) {
      const seconds = ((world.clock.now() - start) / 1000).toFixed(3)
      out.text(`\nElapsed time: ${seconds} seconds\n`)
    }
    return status
  } finally {
    await sheep.close()
  }
}

async function sheepAddress(
  { io, options }: Parsed,
  env: Environment,
): Promise<{ host: string; port: number }> {
  const fromEnv = env.SHEEPDOG_DOG_PORT
  const port = options.port ?? (fromEnv === undefined ? DEFAULT_PORT : parsePort(fromEnv))
  const name = options.address ?? env.SHEEPDOG_DOG_ADDR ?? DEFAULT_ADDRESS
  const host = await io.resolve(name)
  if (host === undefined) throw failed(`Invalid ip address ${name}`)
  return { host, port }
}
