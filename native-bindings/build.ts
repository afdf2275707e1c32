/**
 * Compiles the native addons into build/native, when their sources, the headers or the flags are
 * newer than what is there. Runs as `npm run build`; says nothing when there is nothing to do.
 *
 * A result is put in place by rename: several builds at once do no harm, and neither does a build
 * under a running server.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

interface Addon {
  readonly name: string
  readonly source: string
  /** What it links against. */
  readonly libraries?: readonly string[]
  /** Left out where these headers are missing. */
  readonly wants?: { readonly headers: readonly string[]; readonly without: string }
}

const ADDONS: readonly Addon[] = [
  { name: 'posix', source: 'native-bindings/posix/posix.c' },
  { name: 'fuse', source: 'native-bindings/fuse/fuse.c' },
  { name: 'erasure', source: 'native-bindings/erasure/erasure.c' },
  { name: 'service', source: 'native-bindings/service/service.c' },
  { name: 'nbd', source: 'native-bindings/nbd/nbd.c' },
  {
    name: 'cpg',
    source: 'native-bindings/cpg/cpg.c',
    libraries: ['cpg', 'quorum', 'cfg'],
    wants: {
      headers: ['corosync/cpg.h', 'corosync/quorum.h', 'corosync/cfg.h'],
      without:
        'without -c corosync (for it, on Debian: apt-get install libcpg-dev libquorum-dev libcfg-dev)',
    },
  },
]
const FLAGS = ['-O2', '-Wall', '-Wextra', '-shared', '-fPIC'] as const
/** What it means to be without, and the remedy. */
const LACK =
  'everything works but -c corosync and attaching /dev/nbdN, and much of it more slowly; for them install a C compiler ' +
  '(Debian: apt-get install gcc libc6-dev) and run this again'
const COMPILERS = ['cc', 'gcc', 'clang'] as const
/** This file runs as build/native-bindings/build.js. */
const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const OUT = join(ROOT, 'build', 'native')
/** What several of the sources include. */
const SHARED_HEADER = join(ROOT, 'native-bindings', 'binding.h')

/** Ends the build with a sentence that names the remedy. */
class BuildFailure extends Error {}

interface Job {
  readonly addon: Addon
  readonly source: string
  readonly target: string
  readonly hash: string
}

function main(): void {
  if (process.platform !== 'linux') {
    throw new BuildFailure(`the native addons need Linux; this is ${process.platform}`)
  }
  const include = headerDirectory()
  const jobs = ADDONS.map((addon) => plan(addon, include))
  const stale = jobs.filter((job) => !isFresh(job))
  if (stale.length === 0) return
  const compiler = findCompiler() ?? installCompiler()
  if (compiler === undefined) {
    for (const job of stale) remove(job)
    const names = stale.map((job) => job.addon.name).join(', ')
    process.stderr.write(`build: no C compiler, so without the native bindings ${names}: ${LACK}\n`)
    return
  }
  mkdirSync(OUT, { recursive: true })
  for (const job of stale) {
    const { wants } = job.addon
    if (wants === undefined || hasHeaders(compiler, wants.headers)) compile(compiler, job, include)
    else leaveOut(job, wants.without)
  }
}

/** Of the npm package, or where an installed package has none, of the Node that runs this. */
function headerDirectory(): string {
  try {
    const manifest = createRequire(import.meta.url).resolve('node-api-headers/package.json')
    return join(dirname(manifest), 'include')
  } catch (error) {
    const own = join(dirname(process.execPath), '..', 'include', 'node')
    if (existsSync(join(own, 'node_api.h'))) return own
    throw new BuildFailure('the headers of Node-API are missing: npm install node-api-headers', {
      cause: error,
    })
  }
}

function plan(addon: Addon, include: string): Job {
  const source = join(ROOT, addon.source)
  const hash = createHash('sha256')
  hash.update(JSON.stringify([FLAGS, process.arch, addon.libraries ?? []]))
  const headers = readdirSync(include).sort()
  const files = [source, SHARED_HEADER, ...headers.map((header) => join(include, header))]
  for (const file of files) {
    hash.update(readFileSync(file))
  }
  return { addon, source, target: join(OUT, `${addon.name}.node`), hash: hash.digest('hex') }
}

const hashFile = (job: Job): string => `${job.target}.sha256`

function isFresh(job: Job): boolean {
  if (!existsSync(job.target) || !existsSync(hashFile(job))) return false
  return readFileSync(hashFile(job), 'utf8').trim() === job.hash
}

/** One that has the C library's headers, too. */
function findCompiler(): string | undefined {
  return COMPILERS.find((name) => hasHeaders(name, ['stdlib.h']))
}

/** On Debian and as root a missing compiler is installed; undefined where that is not possible. */
function installCompiler(): string | undefined {
  if (process.getuid?.() !== 0 || !existsSync('/etc/debian_version')) return undefined
  process.stderr.write('build: no C compiler found, installing gcc\n')
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const apt = (args: readonly string[]): boolean =>
    spawnSync('apt-get', args, { stdio: ['ignore', 'ignore', 'inherit'], env }).status === 0
  const install = ['install', '-y', '--no-install-recommends', 'gcc', 'libc6-dev']
  // The package lists may be old or absent: refresh them only when the first try fails.
  return apt(install) || (apt(['update']) && apt(install)) ? findCompiler() : undefined
}

function hasHeaders(compiler: string, headers: readonly string[]): boolean {
  const input = headers.map((header) => `#include <${header}>\n`).join('')
  return spawnSync(compiler, ['-fsyntax-only', '-x', 'c', '-'], { input }).status === 0
}

/** What an earlier build made is not of these sources, or would not load without its libraries. */
function remove(job: Job): void {
  rmSync(job.target, { force: true })
  rmSync(hashFile(job), { force: true })
}

function leaveOut(job: Job, without: string): void {
  remove(job)
  process.stderr.write(`build: ${without}\n`)
}

function compile(compiler: string, job: Job, include: string): void {
  const temporary = `${job.target}.${process.pid}.tmp`
  const libraries = (job.addon.libraries ?? []).map((name) => `-l${name}`)
  const args = [...FLAGS, '-I', include, job.source, '-o', temporary, ...libraries]
  const result = spawnSync(compiler, args, { encoding: 'utf8' })
  if (result.status !== 0) {
    rmSync(temporary, { force: true })
    const output = result.error?.message ?? result.stderr
    throw new BuildFailure(`${compiler} could not compile ${job.source}:\n${output}`)
  }
  // Without its hash the addon counts as stale, so a build that stops between the two is repeated.
  rmSync(hashFile(job), { force: true })
  renameSync(temporary, job.target)
  writeFileSync(`${hashFile(job)}.${process.pid}.tmp`, `${job.hash}\n`)
  renameSync(`${hashFile(job)}.${process.pid}.tmp`, hashFile(job))
}

try {
  main()
} catch (error) {
  if (!(error instanceof BuildFailure)) throw error
  process.stderr.write(`build: ${error.message}\n`)
  process.exitCode = 1
}
