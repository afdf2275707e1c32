/** NBD clients of a process that is no member of the cluster: what it keeps when sheep die, snapshots are taken, it dies itself. */
import type { ExecutionContext } from 'ava'
import { nbdcopy, nbdcopyPaced, qemuIo } from './support/clients.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { makeImage, sameFiles } from './support/images.js'
import { DOG, SHEEP } from './support/paths.js'
import { freePort } from './support/ports.js'
import { type Running, run, start, tryRun, until } from './support/run.js'
import { needing } from './support/suite.js'

const START_MS = 30_000
const realTest = needing('qemu-io', 'nbdcopy', 'nbdinfo')

class Front {
  readonly port: number
  readonly directory: string
  readonly running: Running

  constructor(t: ExecutionContext, cluster: TestCluster, port: number, more: string[] = []) {
    this.port = port
    const sheep = cluster.nodes.map((node) => `${node.host}:${node.port}`).join(',')
    const directory = `${cluster.directory}/front-${port}`
    this.directory = directory
    const where = ['--front', sheep, '--nbd', `127.0.0.1:${port}`, '-P', `${directory}.pid`]
    this.running = start([
      process.execPath,
      SHEEP,
      '-f',
      '--no-config',
      ...where,
      ...more,
      directory,
    ])
    t.teardown(() => this.running.kill('SIGKILL'))
  }

  uri(name: string): string {
    return `nbd://127.0.0.1:${this.port}/${encodeURIComponent(name)}`
  }
}

async function startFront(t: ExecutionContext, cluster: TestCluster): Promise<Front> {
  const front = new Front(t, cluster, await freePort())
  await until('the front to serve', START_MS, async () => {
    if (front.running.ended()) throw new Error((await front.running.done).stderr)
    return (await tryRun(['nbdinfo', '--list', `nbd://127.0.0.1:${front.port}`])).code === 0
  })
  return front
}

async function lockHolders(cluster: TestCluster, index: number): Promise<string> {
  return (await cluster.dogAt(index, 'vdi lock', ['list'])).stdout
}

/** What the front says of itself to `dog nbd list`. */
async function figuresOf(
  t: ExecutionContext,
  { directory }: Front,
  expected: { readonly name: string; readonly connections: number },
): Promise<void> {
  const list = [process.execPath, DOG, 'nbd', 'list', '--front', directory]
  const { exports, connections } = JSON.parse((await run([...list, '--json'])).stdout) as {
    readonly exports: readonly (typeof expected & { readonly operations: Operations })[]
    readonly connections: readonly { readonly export: string | null }[]
  }
  const found = exports.find(({ name }) => name === expected.name)
  t.like(found, expected)
  // At least what was written a moment ago; the copies before it, as far as they were no zeros.
  t.true(found!.operations.write.bytes >= 1536 * 1024, `${found!.operations.write.bytes} bytes`)
  const open = connections.filter((one) => one.export === expected.name)
  t.is(open.length, expected.connections)
  t.regex((await run(list)).stdout, /^Alice +1\t/m)
}

interface Operations {
  readonly write: { readonly count: number; readonly bytes: number }
}

realTest('a front outlives its sheep, follows snapshots, and gives its lock back', async (t) => {
  const cluster = await startCluster(t, { nodes: 3, copies: 3 })
  await cluster.dog('vdi create', 'Alice', '64M')
  const front = await startFront(t, cluster)
  const uri = front.uri('Alice')
  const [image, back] = [`${cluster.directory}/image`, `${cluster.directory}/back`]
  await makeImage(image, 64, 11)

  // The sheep it talks to dies under a copy.
  const copying = nbdcopyPaced(image, uri, 8)
  await until('the copy to hold the disk', START_MS, async () =>
    (await lockHolders(cluster, 1)).includes('Alice'),
  )
  await cluster.node(0).kill()
  await copying
  await nbdcopy(uri, back)
  await sameFiles(image, back)
  await cluster.node(0).start()
  await cluster.members(3, 1)

  // A snapshot is taken under an open disk: the old data is the snapshot's, the new the disk's.
  const client = start(['qemu-io', '-f', 'raw', uri], { interactive: true })
  t.teardown(() => client.kill('SIGKILL'))
  let said = ''
  client.child.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  const ask = async (line: string, answer: RegExp): Promise<void> => {
    said = ''
    client.child.stdin?.write(`${line}\n`)
    await until(line, START_MS, () => answer.test(said))
  }
  await ask('write -P 0x11 1M 1M', /wrote 1048576/)
  // Nobody else can have the disk meanwhile.
  const other = await startFront(t, cluster)
  const refused = tryRun(['nbdinfo', '--size', other.uri('Alice')])
  await cluster.dogAt(1, 'vdi snapshot', ['-s', 'before', 'Alice'])
  await ask('write -P 0x22 1M 512k', /wrote 524288/)
  await ask('flush', /qemu-io>/)
  await ask('read -P 0x22 1M 512k', /read 524288/)
  t.regex((await refused).stderr, /policy prevents/)
  await figuresOf(t, front, { name: 'Alice', connections: 1 })
  client.child.stdin?.write('quit\n')
  await client.done
  await qemuIo(uri, ['read -P 0x22 1M 512k', 'read -P 0x11 1536k 512k'])
  const snapshot = front.uri('Alice@before')
  await run(['qemu-io', '-r', '-f', 'raw', '-c', 'read -P 0x11 1M 1M', snapshot])

  // Stopped in order it hands everything back; killed, its lock ends with its connections.
  front.running.kill('SIGTERM')
  t.is((await front.running.done).code, 0)
  t.notRegex(await lockHolders(cluster, 1), /Alice/)
  await qemuIo(other.uri('Alice'), ['write -P 0x33 4M 64k', 'flush'])
  const held = start(['qemu-io', '-f', 'raw', other.uri('Alice')], { interactive: true })
  t.teardown(() => held.kill('SIGKILL'))
  await until('the disk to be held', START_MS, async () =>
    (await lockHolders(cluster, 1)).includes('Alice'),
  )
  other.running.kill('SIGKILL')
  await other.running.done
  const third = await startFront(t, cluster)
  await qemuIo(third.uri('Alice'), ['read -P 0x33 4M 64k', 'write -P 0x44 4M 64k'])
  held.kill('SIGKILL')
})

needing()('a front says what it cannot be', async (t) => {
  const refusal = async (...words: string[]): Promise<string> => {
    const { code, stderr } = await tryRun([process.execPath, SHEEP, '--no-config', '-f', ...words])
    t.is(code, 1)
    return stderr
  }
  const front = ['--front', '127.0.0.1:1']
  t.regex(await refusal(...front, '-g', '--nbd', '1'), /no member of the cluster: -g is for those/)
  t.regex(await refusal(...front, '--nbd', '1', '/a,/b'), /--front stores nothing/)
  t.regex(await refusal('--front', 'a:b'), /'a:b' is not HOST\[:PORT\]/)
  const asked = await tryRun([process.execPath, DOG, 'nbd', 'list', '--front', '/nowhere'])
  t.is(asked.code, 2)
  t.regex(asked.stderr, /No front answers at \/nowhere\/sock: .*\nPATH is the directory/)
  const nothing = await refusal(...front, '-l', 'dst=stdout')
  t.regex(nothing, /--front serves nothing without --nbd/)
})
