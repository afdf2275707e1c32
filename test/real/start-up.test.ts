/** How a daemon starts, and how it refuses to: exit code 1 and one sentence that names the trouble. */
import { existsSync } from 'node:fs'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import type { ExecutionContext } from 'ava'
import { type NodePlace, planCluster, startCluster, TestNode } from './support/cluster.js'
import { freePort } from './support/ports.js'
import { type RunResult, tryRun, until } from './support/run.js'
import { needing } from './support/suite.js'

const REFUSAL_MS = 15_000
/** Where a store's config file holds its format version (objects spec, 13.1). */
const CONFIG_VERSION_AT = 30
/** Root may write everywhere; not so without this capability. */
const MODES_COUNT =
  process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search'] : []
const realTest = needing()

realTest('a port that is taken is named', async (t) => {
  const node = (await planCluster(t, { nodes: 1 })).node(0)
  await occupy(t, node.port)
  refused(t, await tryStart(node), new RegExp(`${node.port}`))
})

realTest('an NBD port that is taken is named', async (t) => {
  const node = (await planCluster(t, { nodes: 1 })).node(0)
  await occupy(t, node.place.nbdPort)
  refused(t, await tryStart(node), new RegExp(`${node.place.nbdPort}`))
})

realTest('a file where the directory should be is named', async (t) => {
  const node = (await planCluster(t, { nodes: 1 })).node(0)
  await writeFile(node.place.directory, 'not a directory')
  refused(t, await tryStart(node), new RegExp(node.place.directory))
  t.is((await readFile(node.place.directory)).toString(), 'not a directory')
})

realTest('a directory that may not be written is named', async (t) => {
  const node = (await planCluster(t, { nodes: 1, place: () => ({ inside: MODES_COUNT }) })).node(0)
  await mkdir(node.place.directory, { mode: 0o500 })
  refused(t, await tryStart(node), new RegExp(node.place.directory))
})

realTest('a second daemon on the same directory is refused, the first goes on', async (t) => {
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  const first = cluster.node(0).place
  const place: NodePlace = { ...first, port: await freePort(), nbdPort: await freePort() }
  refused(t, await tryStart(new TestNode(place)), new RegExp(first.directory))
  await cluster.dog('vdi create', 'Alice', '8M')
})

realTest('a store of another format version is refused, by version', async (t) => {
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  const node = cluster.node(0)
  await node.stop()
  const config = await open(`${node.place.directory}/config`, 'r+')
  await config.write(Buffer.from([3, 0]), 0, 2, CONFIG_VERSION_AT)
  await config.close()
  refused(t, await tryStart(node), /version/i, /\b3\b/)
})

realTest('without -f the command returns when the node has joined', async (t) => {
  const cluster = await planCluster(t, { nodes: 1 })
  const node = cluster.node(0)
  const pidFile = `${cluster.directory}/pid`
  const command = node.command().filter((word) => word !== '-f')
  const started = await tryRun([...command, '-P', pidFile], { timeoutMs: REFUSAL_MS })
  t.is(started.code, 0, `${started.stdout}${started.stderr}`)
  const pid = Number((await readFile(pidFile)).toString())
  t.true(pid > 1)
  try {
    await cluster.members(1)
    process.kill(pid, 'SIGTERM')
    await until('the end of the daemon', REFUSAL_MS, () => !existsSync(`/proc/${pid}`))
    t.false(existsSync(pidFile), 'the pid file stays behind')
  } finally {
    if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL')
  }
})

realTest('without -f a refused start is reported too', async (t) => {
  const node = (await planCluster(t, { nodes: 1 })).node(0)
  await occupy(t, node.port)
  const command = node.command().filter((word) => word !== '-f')
  refused(t, await tryRun(command, { timeoutMs: REFUSAL_MS }), new RegExp(`${node.port}`))
})

realTest('SIGTERM ends a daemon in order, with exit code 0', async (t) => {
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  t.is((await cluster.node(0).stop())?.code, 0)
})

function tryStart(node: TestNode): Promise<RunResult> {
  return tryRun(node.command(), { timeoutMs: REFUSAL_MS })
}

function refused(t: ExecutionContext, result: RunResult, ...named: readonly RegExp[]): void {
  const words = `${result.stdout}${result.stderr}`
  t.false(result.timedOut, `it started:\n${words}`)
  t.is(result.code, 1, words)
  for (const name of named) t.regex(words, name)
  t.notRegex(words, /\n\s+at /, 'a stack trace is no message for people')
}

async function occupy(t: ExecutionContext, port: number): Promise<void> {
  const server: Server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port, host: '127.0.0.1' }, () => resolve())
  })
  t.teardown(() => new Promise<void>((resolve) => server.close(() => resolve())))
}
