/** Help texts, laid out as 1.0's (dog spec, section 1). */
import type { Noun, Subcommand, ThirdWord } from './command.js'
import type { OptionSpec } from './options.js'

const NAME_COLUMNS = 24
const LONG_COLUMNS = 18
const CONTINUATION = `\n${' '.repeat(26)}`

export const HINT = "Try 'dog --help' for more information."

export function title(version: string): string {
  return `Sheepdog administrator utility (version ${version})`
}

export function overview(nouns: readonly Noun[], version: string): string {
  const rows = nouns.flatMap((noun) =>
    noun.subcommands.map(
      (sub) => `  ${`${noun.name} ${sub.name}`.padEnd(NAME_COLUMNS)}${sub.summary}\n`,
    ),
  )
  return [
    `${title(version)}\n`,
    'Usage: dog <command> <subcommand> [options]\n',
    '\nCommands:\n',
    ...rows,
    "\nFor more information, run 'dog <command> <subcommand> --help'.\n",
  ].join('')
}

/** The lines that answer `dog vdi` and `dog vdi foo`. */
export function available(noun: Noun): string[] {
  const names = noun.subcommands.map((sub) => `  ${noun.name} ${sub.name}`)
  return [`Available ${noun.name} commands:`, ...names]
}

export function subcommandHelp(noun: Noun, sub: Subcommand): string {
  const words = sub.words ?? []
  const usage = ['Usage: dog', noun.name, sub.name, ...choice(words), ...sub.options.map(usageOf)]
  if (sub.synopsis !== '') usage.push(sub.synopsis)
  const rows = words.map(({ name, summary }) => `  ${name.padEnd(NAME_COLUMNS)}${summary}\n`)
  const thirdWords = rows.length === 0 ? '' : `Available subcommands:\n${rows.join('')}`
  return `${usage.join(' ')}\n${thirdWords}Options:\n${sub.options.map(optionHelp).join('')}`
}

/** `{force|enable|disable}`; a bare word when there is only one. */
function choice(words: readonly ThirdWord[]): string[] {
  const names = words.map(({ name }) => name).join('|')
  if (words.length === 0) return []
  return [words.length === 1 ? names : `{${names}}`]
}

function usageOf(option: OptionSpec): string {
  const name = option.letter === undefined ? `--${option.long}` : `-${option.letter}`
  return option.valued ? `[${name} ${option.long}]` : `[${name}]`
}

function optionHelp(option: OptionSpec): string {
  const letter = option.letter === undefined ? '   ' : `-${option.letter},`
  const long = option.long.padEnd(LONG_COLUMNS)
  return `  ${letter} --${long}${option.help.replaceAll('\n', CONTINUATION)}\n`
}
