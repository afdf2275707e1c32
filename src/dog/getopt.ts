/**
 * Options the way GNU getopt_long takes them. `commander` holds the options and reads their
 * values; before it, `normalise` turns GNU spellings (abbreviated long names, letters in one
 * word) into plain ones and complains in the C library's words.
 */
import { Command, Option } from 'commander'
import { Exit, Failure } from './failure.js'
import { HINT } from './help.js'
import type { DogOptions, OptionSpec } from './options.js'

export interface ParsedArguments {
  readonly options: DogOptions
  readonly operands: readonly string[]
}

/** Throws a Failure: getopt's complaint or an option's own, whichever comes first in the line. */
export function parseArguments(
  args: readonly string[],
  specs: readonly OptionSpec[],
): ParsedArguments {
  const { words, complaint } = normalise(args, specs)
  const command = new Command().argument('[operands...]').helpOption(false).exitOverride()
  for (const spec of specs) {
    const option = new Option(spec.valued ? `--${spec.long} <value>` : `--${spec.long}`)
    if (spec.parse !== undefined) option.argParser(spec.parse)
    command.addOption(option)
  }
  command.parse(words, { from: 'user' })
  const options = command.opts<DogOptions>()
  if (complaint !== undefined) {
    throw new Failure(Exit.usage, [complaint, HINT])
  }
  return { options, operands: command.args }
}

interface Normalised {
  /**
   * `--port=7001 --raw -- operand operand`: only the options before the first fault or `--help`.
   */
  readonly words: string[]
  readonly complaint?: string
}

/** An option as found in a word: with its value, or wanting the next word, or wrong. */
type Found =
  | { readonly spec: OptionSpec; readonly value?: string | undefined }
  | { readonly complaint: string }

export function normalise(args: readonly string[], specs: readonly OptionSpec[]): Normalised {
  const words: string[] = []
  const operands: string[] = []
  const rest = [...args]
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') {
      operands.push(...rest.splice(0))
    } else if (!word.startsWith('-') || word === '-') {
      operands.push(word)
    } else {
      for (const found of word.startsWith('--')
        ? [longOption(word, specs)]
        : letters(word, specs)) {
        if ('complaint' in found) return { words, complaint: found.complaint }
        const { spec } = found
        const value = spec.valued ? (found.value ?? rest.shift()) : undefined
        if (spec.valued && value === undefined) return { words, complaint: missing(spec, word) }
        words.push(value === undefined ? `--${spec.long}` : `--${spec.long}=${value}`)
        if (spec.long === 'help') return { words }
      }
    }
  }
  return { words: [...words, '--', ...operands] }
}

function missing(spec: OptionSpec, word: string): string {
  return word.startsWith('--')
    ? `dog: option '--${spec.long}' requires an argument`
    : `dog: option requires an argument -- '${spec.letter}'`
}

function longOption(word: string, specs: readonly OptionSpec[]): Found {
  const equals = word.indexOf('=')
  const name = equals < 0 ? word.slice(2) : word.slice(2, equals)
  const value = equals < 0 ? undefined : word.slice(equals + 1)
  const exact = specs.find((spec) => spec.long === name)
  const meant = exact === undefined ? specs.filter((spec) => spec.long.startsWith(name)) : [exact]
  const [spec] = meant
  if (spec === undefined) return { complaint: `dog: unrecognized option '${word}'` }
  if (meant.length > 1) {
    const names = meant.map((one) => ` '--${one.long}'`).join('')
    return { complaint: `dog: option '${word}' is ambiguous; possibilities:${names}` }
  }
  if (value !== undefined && !spec.valued) {
    return { complaint: `dog: option '--${spec.long}' doesn't allow an argument` }
  }
  return { spec, value }
}

/** `-rv`, `-p7001`, `-rp 7001`: letters up to the first that takes a value, which gets the rest. */
function* letters(word: string, specs: readonly OptionSpec[]): Generator<Found> {
  for (let i = 1; i < word.length; i++) {
    const spec = specs.find((one) => one.letter === word[i])
    if (spec === undefined) {
      yield { complaint: `dog: invalid option -- '${word[i]}'` }
      return
    }
    if (spec.valued) {
      yield { spec, value: word.slice(i + 1) || undefined }
      return
    }
    yield { spec }
  }
}
