/** The manual pages in man/ and the programs say the same: no option, command or key is in one of them only. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { configKeys } from '../../src/bin/config-file.js'
import { CREDENTIAL_KEYS, TARGET_KEYS } from '../../src/bin/iscsi-rules.js'
import { EXPORT_KEYS } from '../../src/bin/nbd-rules.js'
import { notServedKeys, sheepCommand } from '../../src/bin/sheep-options.js'
import { sheepfsCommand } from '../../src/bin/sheepfs-options.js'
import { NOUNS } from '../../src/dog/main.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'

const MAN = fileURLToPath(new URL('../../../man/', import.meta.url))
const PAGES = readdirSync(MAN).sort()
/** Of dog.8; a command of one of the nouns need not describe them again. */
const COMMON = ['address', 'port', 'help', 'time']
/** Described in dog.8; a command that has one says so. */
const MENTIONED = ['raw', 'verbose', 'json']

interface Flagged {
  /** `-p`, absent when there is none. */
  readonly short: string | undefined
  readonly long: string
}

/** The lines of a page, under the last .Sh and .Ss before them. */
interface Line {
  readonly section: string
  readonly part: string
  readonly text: string
}

function linesOf(page: string): Line[] {
  let [section, part] = ['', '']
  return readFileSync(`${MAN}${page}`, 'utf8')
    .split('\n')
    .flatMap((text) => {
      const [, macro, title = ''] = /^\.(Sh|Ss) (.*)$/.exec(text) ?? []
      if (macro === 'Sh') [section, part] = [title, '']
      else if (macro === 'Ss') part = title
      return macro === undefined ? [{ section, part, text }] : []
    })
}

/** `-p` and `--port` of `.It Fl p , Fl -port Ar PORT`, and of Fl anywhere else in a line of macros. */
function flagsOf(text: string): string[] {
  if (!text.startsWith('.')) return []
  return [...text.matchAll(/\bFl (\S+)/g)].map(([, name]) => `-${name!.replace('\\&', '')}`)
}

/** What a page's list of options has, one row an option: as the program prints it. */
function optionRows(lines: readonly Line[]): string[] {
  return lines
    .filter(({ text }) => text.startsWith('.It Fl '))
    .map(({ text }) => flagsOf(text).join(', '))
    .sort()
}

function rowOf({ short, long }: Flagged): string {
  return short === undefined ? long : `${short}, ${long}`
}

function flagged(options: readonly { short?: string; long?: string }[]): Flagged[] {
  return options.map(({ short, long }) => ({ short, long: long! }))
}

/** Of `.It Ic key = Ar value`. */
function itemsOf(lines: readonly Line[]): string[] {
  return lines
    .flatMap(({ text }) => /^\.It Ic (\S+)/.exec(text)?.[1] ?? [])
    .map((word) => word.replaceAll('\\-', '-').replace('\\&', ''))
    .sort()
}

function commanderRows(program: ReturnType<typeof sheepCommand>): string[] {
  const own = flagged(program.options)
  return [...own, { short: '-h', long: '--help' }].map(rowOf).sort()
}

test('sheep(8) has every option of sheep, and no other', (t) => {
  const program = sheepCommand('1', [])
  t.deepEqual(optionRows(linesOf('sheep.8')), commanderRows(program))
})

test('sheepfs(8) has every option of sheepfs, and no other', (t) => {
  const program = sheepfsCommand('1')
  t.deepEqual(optionRows(linesOf('sheepfs.8')), commanderRows(program))
})

test('sheep.toml(5) has every key of the configuration file, and no other', (t) => {
  const lines = linesOf('sheep.toml.5').filter(({ section }) => section === 'KEYS')
  const inPart = (part: string): string[] =>
    itemsOf(lines.filter((one) => one.part === part).map((line) => line))
  const { options } = sheepCommand('1', [])
  const known = configKeys({ options, notServed: notServedKeys() })
  t.deepEqual(inPart('Top level'), [...known.top!].sort())
  t.deepEqual(inPart('[nbd]'), [...known.nbd!].sort())
  t.deepEqual(inPart('[[nbd.export]]'), [...EXPORT_KEYS].sort())
  t.deepEqual(inPart('[iscsi]'), [...known.iscsi!].sort())
  t.deepEqual(inPart('[[iscsi.target]]'), [...TARGET_KEYS].sort())
  t.deepEqual(inPart('Credentials'), [...CREDENTIAL_KEYS].sort())
})

test('dog(8) names every noun, each noun has a page', (t) => {
  const described = itemsOf(linesOf('dog.8').filter(({ section }) => section === 'DESCRIPTION'))
  t.deepEqual(described, NOUNS.map(({ name }) => name).sort())
  t.true(NOUNS.every(({ name }) => name === 'completion' || existsSync(`${MAN}dog-${name}.8`)))
})

for (const noun of NOUNS) {
  const page = existsSync(`${MAN}dog-${noun.name}.8`) ? `dog-${noun.name}.8` : 'dog.8'
  const prefix = page === 'dog.8' ? `${noun.name} ` : ''
  const all = linesOf(page).filter(({ part }) => part.startsWith(prefix) && part !== '')
  test(`${page} has every command of dog ${noun.name}, and no other`, (t) => {
    const parts = [...new Set(all.map(({ part }) => part))]
    t.deepEqual(parts.sort(), noun.subcommands.map(({ name }) => prefix + name).sort())
  })
  for (const sub of noun.subcommands) {
    const lines = all.filter(({ part }) => part === prefix + sub.name)
    test(`${page} has every option of dog ${noun.name} ${sub.name}, and no other`, (t) => {
      const specs = sub.options.map(({ letter, long }) => ({
        short: letter === undefined ? undefined : `-${letter}`,
        long: `--${long}`,
      }))
      const isOf = (names: readonly string[], { long }: Flagged): boolean =>
        names.includes(long.slice(2))
      const own = specs.filter((spec) => !isOf(COMMON, spec) && !isOf(MENTIONED, spec))
      t.deepEqual(optionRows(lines), own.map(rowOf).sort())
      const said = lines.flatMap(({ text }) => flagsOf(text))
      for (const spec of specs.filter((one) => isOf(MENTIONED, one))) {
        t.true(said.includes(spec.short ?? spec.long), `it does not mention ${spec.long}`)
      }
      const known = specs.flatMap(({ short, long }) => [short, long])
      t.deepEqual(
        said.filter((flag) => !known.includes(flag)),
        [],
      )
    })
    test(`${page} has every word of dog ${noun.name} ${sub.name}`, (t) => {
      const text = lines.map((line) => line.text).join('\n')
      const missing = (sub.words ?? []).filter(({ name }) => {
        const asWritten = name.replaceAll('-', '\\-')
        return !text.includes(`.It Ql ${asWritten}`) && !text.includes(`.It Ql "${asWritten} `)
      })
      t.deepEqual(missing, [])
    })
  }
}

test('the common options of dog(8) are those of its commands', (t) => {
  const rows = optionRows(linesOf('dog.8').filter(({ section }) => section === 'COMMON OPTIONS'))
  const specs = NOUNS.flatMap(({ subcommands }) => subcommands.flatMap(({ options }) => options))
  for (const long of [...COMMON, ...MENTIONED]) {
    const { letter } = specs.find((spec) => spec.long === long)!
    t.true(rows.includes(rowOf({ short: letter && `-${letter}`, long: `--${long}` })), long)
  }
  t.is(rows.length, COMMON.length + MENTIONED.length)
})

test('sheepdog-protocols(7) has the numbers that are ours, and no two requests have one', (t) => {
  const lines = linesOf('sheepdog-protocols.7')
  const rows = lines.flatMap(({ text }) => {
    const [, name, number] = /^\.It Ic ([A-Z_]+) = Ar (0x\w\w)$/.exec(text) ?? []
    return name === undefined ? [] : [[name, Number(number)] as const]
  })
  t.true(rows.length > 10)
  const numbers = new Map<string, number>(Object.entries(Op))
  for (const [name, number] of rows) t.is(numbers.get(name), number, name)
  t.is(new Set(numbers.values()).size, numbers.size)
})

test('pages refer to pages that are there, or to those of others', (t) => {
  const others =
    /^(fstab|fsync|fstrim|mkdir|rmdir|mv|truncate|fallocate|fusermount3|nbd-client|qemu-img|sd_\w+)$/
  for (const page of PAGES) {
    for (const { text } of linesOf(page)) {
      const [, name, section] = /^\.(?:Pq )?Xr (\S+) (\d)/.exec(text) ?? []
      if (name === undefined || others.test(name)) continue
      t.true(PAGES.includes(`${name}.${section}`), `${page}: ${name}(${section})`)
    }
  }
})
