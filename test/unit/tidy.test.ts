// The repository checks itself: floors, banned calls, files nobody imports, sizes, words left behind.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const PROJECT = fileURLToPath(new URL('../../../', import.meta.url))
const SOURCE = join(PROJECT, 'src')

/** Lower floors come first; a file imports from its own folder and from lower floors. */
const FLOORS: readonly (readonly string[])[] = [
  ['base'],
  ['model', 'world', 'inspect'],
  ['wire'],
  ['store', 'cluster', 'peer'],
  ['sheep'],
  ['volume'],
  ['remote'],
  ['doors', 'sheepfs'],
  ['dog'],
  ['bin'],
]

/** Folders whose files stand for the real machine; everything else gets its world handed in. */
const REAL_WORLD = [/^world\/node\//, /^bin\//]
const BANNED = [
  /\bDate\.now\b/,
  /\bMath\.random\b/,
  /\bset(Timeout|Interval|Immediate)\b/,
  /'node:(fs|net|child_process|dgram|tls|http)(\/promises)?'/,
]
const LINES_MAX = 500

interface SourceFile {
  readonly path: string
  readonly text: string
  readonly imports: readonly string[]
}

function sourceFiles(): SourceFile[] {
  const names = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
  return names
    .filter((name) => /\.c?ts$/.test(name))
    .map((path) => {
      const text = readFileSync(join(SOURCE, path), 'utf8')
      const found = text.matchAll(/(?:from|import) ?\(?'(\.[^']+)'/g)
      const imports = [...found].map(([, target]) =>
        normalize(join(dirname(path), target!)).replace(/\.js$/, '.ts'),
      )
      return { path, text, imports }
    })
}

const FILES = sourceFiles()

function floorOf(path: string): number {
  const folder = path.split('/')[0]!
  return FLOORS.findIndex((floor) => floor.includes(folder))
}

/** `doors/nbd` for a door, `wire/nbd` for a protocol, else the top folder. */
function roomOf(path: string): string {
  const parts = path.split('/')
  return parts[0] === 'doors' || parts[0] === 'wire' ? parts.slice(0, 2).join('/') : parts[0]!
}

test('every source file stands on a floor', (t) => {
  t.true(FILES.length > 50)
  for (const { path } of FILES) t.not(floorOf(path), -1, path)
})

test('a file imports only its own room and lower floors', (t) => {
  for (const { path, imports } of FILES) {
    for (const target of imports) {
      const isFine = roomOf(path) === roomOf(target) || floorOf(target) < floorOf(path)
      t.true(isFine, `${path} imports ${target}`)
    }
  }
})

test('only the real world touches clock, chance, network and files', (t) => {
  for (const { path, text } of FILES) {
    if (REAL_WORLD.some((folder) => folder.test(path))) continue
    for (const banned of BANNED) t.notRegex(text, banned, path)
  }
})

test('every source file is imported or started', (t) => {
  const reached = new Set(FILES.flatMap(({ imports }) => imports))
  const started = /^bin\/(sheep\.cts|dog\.ts|sheepfs\.ts|quickstart\.ts)$/
  // The driver for clusters in one process: only tests start those so far.
  reached.add('cluster/memory.ts')
  for (const { path } of FILES) t.true(reached.has(path) || started.test(path), path)
})

test('files stay readable at one sitting', (t) => {
  for (const { path, text } of FILES) t.true(text.split('\n').length <= LINES_MAX, path)
})

test('nothing unfinished stands in the sources', (t) => {
  const words = new RegExp(['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', '@ts-' + 'ignore'].join('|'))
  for (const { path, text } of FILES) t.notRegex(text, words, path)
})
