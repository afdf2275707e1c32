/** Sizes as people type them and as 1.0 prints them (dog spec, section 2). */
import { misused } from './failure.js'

const SUFFIXES = 'BKMGTP'
const DECIMAL = /^[ \t\n\v\f\r]*(?:\+?((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?))?([bkmgtp])?$/i
const HEXADECIMAL = /^[ \t\n\v\f\r]*\+?0x([0-9a-f]*)(?:\.([0-9a-f]*))?(?:p([+-]?\d+))?([kmgtp])?$/i

/**
 * Bytes: a decimal or 0x number, then at most one letter (powers of 1024). Nothing, or only a
 * letter, is 0. Beyond 1.0 we refuse what is not a size: negative numbers, `inf`, `nan`. May
 * exceed 2^53.
 */
export function parseSize(text: string): number {
  const bytes = decimalSize(text) ?? hexadecimalSize(text)
  if (bytes === undefined || !Number.isFinite(bytes)) {
    throw misused(
      `Invalid size '${text}'`,
      'You may use B, K, M, G, T or P suffixes for bytes, kilobytes, megabytes, gigabytes, ' +
        'terabytes and petabytes.',
    )
  }
  return Math.trunc(bytes)
}

function decimalSize(text: string): number | undefined {
  const match = DECIMAL.exec(text)
  if (match === null) return undefined
  return Number(match[1] ?? '0') * unit(match[2])
}

function hexadecimalSize(text: string): number | undefined {
  const match = HEXADECIMAL.exec(text)
  if (match === null) return undefined
  const whole = match[1] ?? ''
  const fraction = match[2] ?? ''
  if (whole === '' && fraction === '') return undefined
  let value = 0
  for (const digit of whole + fraction) value = value * 16 + Number.parseInt(digit, 16)
  const exponent = Number(match[3] ?? '0') - 4 * fraction.length
  return value * 2 ** exponent * unit(match[4])
}

function unit(letter: string | undefined): number {
  return letter === undefined ? 1 : 1024 ** SUFFIXES.indexOf(letter.toUpperCase())
}

const UNITS = ['MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'] as const

/** `20 MB`, `1.5 MB`, `0.0 MB`: the smallest unit is MB, one decimal below 10. */
export function sizeText(bytes: number): string {
  let value = bytes / 1048576
  let step = 0
  while (value >= 1024 && step < UNITS.length - 1) {
    value /= 1024
    step++
  }
  return `${value >= 10 ? roundHalfEven(value, 0) : roundHalfEven(value, 1)} ${UNITS[step]}`
}

/**
 * printf rounds exact halves to even, toFixed away from zero; at one decimal only x.25 and x.75
 * are.
 */
function roundHalfEven(value: number, decimals: 0 | 1): string {
  const halves = decimals === 0 ? value * 2 : value * 4
  if (!Number.isInteger(halves) || halves % 2 === 0) return value.toFixed(decimals)
  const scaled = decimals === 0 ? value : value * 10
  const below = Math.floor(scaled)
  return ((below % 2 === 0 ? below : below + 1) / (decimals === 0 ? 1 : 10)).toFixed(decimals)
}

/** As a column: decimal bytes when raw. */
export function sizeField(bytes: number, raw: boolean | undefined): string {
  return raw === true ? String(bytes) : sizeText(bytes)
}
