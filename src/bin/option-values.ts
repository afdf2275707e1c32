/** Values of options that several of them take. */
import { InvalidArgumentError } from 'commander'

/** Both ends are included. */
export function wholeNumber(name: string, least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= least && value <= most) return value
    throw new InvalidArgumentError(`${name} is a number from ${least} to ${most}.`)
  }
}

export const portNumber = wholeNumber('a port', 1, 65535)

export function oneOf<Word extends string>(
  words: readonly Word[],
  what: string,
): (text: string) => Word {
  return (text) => {
    const found = words.find((word) => word === text)
    if (found !== undefined) return found
    throw new InvalidArgumentError(`${what} is one of ${words.join(', ')}.`)
  }
}
