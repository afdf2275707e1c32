/** Subcommands with a third word: `dog node recovery set-throttle 10 500` (dog spec, section 1). */
import type { Subcommand, ThirdWord } from './command.js'

type Spec = Omit<Subcommand, 'run' | 'needsOperand' | 'words'> & {
  readonly words: readonly ThirdWord[]
}

/** A subcommand that only its third words run. */
export function withWords(spec: Spec): Subcommand {
  const run = (): Promise<never> => Promise.reject(new Error(`${spec.name} needs a third word`))
  return { ...spec, run }
}

export interface Found {
  /** The third word as a command of its own, for its run and its help. */
  readonly sub: Subcommand
  /** Without the third word. */
  readonly operands: readonly string[]
}

/** Undefined when the third word is missing where one is needed, or nobody knows it. */
export function findThirdWord(sub: Subcommand, operands: readonly string[]): Found | undefined {
  const [name = sub.defaultWord, ...rest] = operands
  const word = sub.words?.find((one) => one.name === name)
  if (word === undefined) return undefined
  // As in 1.0 an empty first operand counts as none, here and only here.
  const given = rest[0] === '' ? [] : rest
  return {
    sub: { ...word, name: `${sub.name} ${word.name}`, options: sub.options },
    operands: given,
  }
}
