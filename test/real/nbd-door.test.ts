/** The NBD door of a real daemon with its configuration file: rules, limits, figures, crowds, the end in order. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createConnection, type Socket } from 'node:net'
import type { ExecutionContext } from 'ava'
import { Command, GREETING_MAGIC, NbdError, Option, Rep } from '../../src/wire/nbd/constants.js'
import { NbdClient, type NbdNotOpened, NbdRefused } from '../faults/nbd-client.js'
import { ask, HELLO, infoData, option } from '../unit/support/nbd-rig.js'
import { optionTranscript } from '../unit/support/nbd-transcript.js'
import { certificates } from './support/certificates.js'
import { fioParallel, nbdinfo, nbdList } from './support/clients.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { scratch } from './support/owner.js'
import { freePorts } from './support/ports.js'
import { run, tryRun, until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const { ESHUTDOWN } = NbdError

interface Served {
  readonly cluster: TestCluster
  readonly config: string
  readonly place: { readonly host: string; readonly port: number }
}

/** One node with a configuration file and the volumes Alice and Bob. */
async function served(t: ExecutionContext, text: string): Promise<Served> {
  const config = `${await scratch(t)}/sheep.toml`
  await writeFile(config, text)
  const options = ['--config', config]
  const cluster = await startCluster(t, { nodes: 1, copies: 1, place: () => ({ options }) })
  for (const name of ['Alice', 'Bob']) await cluster.dog('vdi create', name, '64M')
  const node = cluster.node(0)
  return { cluster, config, place: { host: node.host, port: node.place.nbdPort } }
}

interface Listed {
  readonly exports: readonly {
    readonly name: string
    readonly connections: number
    readonly operations: Readonly<Record<string, { count: number; bytes: number }>>
    readonly errors: number
  }[]
  readonly connections: readonly {
    readonly client: string
    readonly export: string | null
    readonly tls: boolean
    readonly headers: string
    readonly readOnly: boolean
  }[]
}

async function listed(cluster: TestCluster): Promise<Listed> {
  return JSON.parse((await cluster.dog('nbd list', '--json')).stdout) as Listed
}

needing('nbdinfo')(
  'rules of the file: read-only, refused with the reason, not in the list, and new ones after SIGHUP',
  async (t) => {
    const rules = `
[nbd]
default-export = "Bob"
[[nbd.export]]
name = "Bob"
read-only = true
addresses = ["127.0.0.0/8"]
description = "for everybody here"
[[nbd.export]]
name = "Alice"
addresses = ["192.0.2.0/24"]
`
    const { cluster, config, place } = await served(t, rules)
    t.deepEqual(await nbdList(cluster.server()), ['Bob'])
    t.true((await nbdinfo(cluster.uri('Bob'))).is_read_only)
    t.is((await nbdinfo(cluster.server()))['export-size'], 64 * MIB)
    const { stdout } = await run(['nbdinfo', '--list', cluster.server()])
    t.regex(stdout, /for everybody here/)
    t.not((await tryRun(['nbdinfo', cluster.uri('Alice')])).code, 0)
    const refused = await t.throwsAsync<NbdNotOpened>(NbdClient.open(place, 'Alice'))
    t.is(refused?.message, "refused: export 'Alice' is not for this client")
    await writeFile(config, rules.replace('192.0.2.0/24', '127.0.0.1'))
    cluster.node(0).signal('SIGHUP')
    await until('the new rules', 10_000, async () => {
      return (await tryRun(['nbdinfo', cluster.uri('Alice')])).code === 0
    })
    await writeFile(config, `${rules}\nhiden = true\n`)
    cluster.node(0).signal('SIGHUP')
    await until('the complaint', 10_000, async () => {
      return (await cluster.node(0).logTail()).includes("is 'hidden' meant?")
    })
    t.false((await nbdinfo(cluster.uri('Alice'))).is_read_only)
  },
)

needing('nbdinfo', 'openssl')(
  'a rule for the name in a certificate, over TLS by nbds://; figures know who is encrypted',
  async (t) => {
    const pki = await certificates(t)
    const { cluster } = await served(
      t,
      `
[nbd]
tls-certificates = "${pki}"
tls-verify-peer = true
[[nbd.export]]
name = "Alice"
certificates = ["client.example"]
[[nbd.export]]
name = "Bob"
certificates = ["somebody.else"]
`,
    )
    const server = cluster.server().replace('nbd:', 'nbds:')
    const uri = (name: string): string => `${server}/${name}?tls-certificates=${pki}`
    t.is((await nbdinfo(uri('Alice')))['export-size'], 64 * MIB)
    t.not((await tryRun(['nbdinfo', uri('Bob')])).code, 0)
    t.true((await cluster.node(0).logTail()).includes('export=Bob names=client.example'))
    t.deepEqual(await nbdList(`${server}/?tls-certificates=${pki}`), ['Alice'])
  },
)

/** STARTTLS by hand, then GnuTLS's client on the same connection: what it says comes out at the other end. */
needing('gnutls-cli', 'openssl')('gnutls-cli goes on where STARTTLS was agreed', async (t) => {
  const pki = await certificates(t)
  const { place } = await served(t, `[nbd]\ntls-certificates = "${pki}"\n`)
  const words = ['--starttls', '--no-ca-verification', '-p', `${place.port}`, place.host]
  const child = spawn('gnutls-cli', words, { stdio: 'pipe' })
  t.teardown(() => void child.kill('SIGKILL'))
  let printed = Buffer.alloc(0)
  child.stdout.on('data', (chunk: Buffer) => {
    printed = Buffer.concat([printed, chunk])
  })
  let told = ''
  child.stderr.on('data', (chunk: Buffer) => {
    told += chunk.toString()
  })
  const seen = async (what: string, bytes: Buffer): Promise<void> => {
    await until(what, 10_000, async () => printed.includes(bytes))
  }
  const reply = (id: number, type: number): Buffer => {
    const head = Buffer.alloc(20)
    head.writeBigUInt64BE(0x0003e889045565a9n, 0)
    head.writeUInt32BE(id, 8)
    head.writeUInt32BE(type >>> 0, 12)
    return head
  }
  await seen('the greeting', u32(GREETING_MAGIC[0]))
  child.stdin.write(Buffer.concat([HELLO, option(Option.LIST)]))
  await seen('LIST refused in the clear', reply(Option.LIST, Rep.ERR_TLS_REQD).subarray(0, 16))
  child.stdin.write(option(Option.STARTTLS))
  await seen('the consent', reply(Option.STARTTLS, Rep.ACK))
  child.kill('SIGALRM')
  // What it is given from here on it keeps until the handshake is over.
  await until('the handshake', 10_000, async () => told.includes('Starting TLS handshake'))
  child.stdin.write(option(Option.LIST))
  await seen('the list', reply(Option.LIST, Rep.ACK))
  t.true(printed.includes('Alice') && printed.includes('Bob'))
  child.stdin.write(option(Option.ABORT))
  await seen('the end', reply(Option.ABORT, Rep.ACK))
})

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

needing('fio')(
  'sixteen connections write and verify at once, and their figures add up',
  async (t) => {
    const { cluster } = await served(t, '')
    const share = { jobs: 16, mebibytesEach: 4 }
    await fioParallel(cluster.uri('Alice'), share)
    const { exports, connections } = await listed(cluster)
    const alice = exports.find(({ name }) => name === 'Alice')
    t.is(alice?.operations.write?.bytes, 64 * MIB)
    t.is(alice?.operations.read?.bytes, 64 * MIB)
    t.is(alice?.errors, 0)
    t.is(connections.filter(({ export: name }) => name === 'Alice').length, alice?.connections ?? 0)
  },
)

needing()(
  'TCP of both families and a unix socket at once; who is one too many is told',
  async (t) => {
    const [port = 0] = await freePorts(1)
    const directory = await scratch(t)
    const socket = `${directory}/nbd.sock`
    const config = `${directory}/sheep.toml`
    await writeFile(config, '[nbd]\nconnections = 5\nconnections-per-client = 3\n')
    const more = ['--nbd', `[::1]:${port}`, '--nbd', `unix:${socket}`]
    const options = ['--config', config, ...more]
    const cluster = await startCluster(t, { nodes: 1, copies: 1, place: () => ({ options }) })
    await cluster.dog('vdi create', 'Alice', '4M')
    const node = cluster.node(0)
    const tcp = { host: node.host, port: node.place.nbdPort }
    // The connection that found the door open may not have ended yet.
    await until(
      'an empty door',
      10_000,
      async () => (await listed(cluster)).connections.length === 0,
    )
    const open: NbdClient[] = []
    t.teardown(() => {
      for (const client of open) client.destroy('the test is over')
    })
    for (let i = 0; i < 3; i++) open.push(await NbdClient.open(tcp, 'Alice'))
    const fourth = await t.throwsAsync<NbdNotOpened>(NbdClient.open(tcp, 'Alice'))
    t.regex(fourth?.message ?? '', /refused: 127\.0\.0\.1 has its 3 connections/)
    open.push(await NbdClient.open({ host: '::1', port }, 'Alice'))
    const local = createConnection(socket)
    t.teardown(() => local.destroy())
    local.write(Buffer.concat([HELLO, option(Option.GO, infoData('Alice'))]))
    await until(
      'the unix client',
      10_000,
      async () => (await listed(cluster)).connections.length === 5,
    )
    const clients = (await listed(cluster)).connections.map(({ client }) =>
      client.replace(/\d+$/, ''),
    )
    t.deepEqual(clients.sort(), ['127.0.0.1:', '127.0.0.1:', '127.0.0.1:', '[::1]:', 'unix'])
    const sixth = await t.throwsAsync<NbdNotOpened>(NbdClient.open({ host: '::1', port }, 'Alice'))
    t.regex(sixth?.message ?? '', /refused: this server has its 5 connections/)
    open.pop()?.destroy('room for another one')
    await until('room', 10_000, async () => (await listed(cluster)).connections.length === 4)
    open.push(await NbdClient.open({ host: '::1', port }, 'Alice'))
  },
)

needing()('four hundred connections at once each write and read their own blocks', async (t) => {
  const { cluster, place } = await served(t, '')
  const clients = await Promise.all(
    Array.from({ length: 400 }, (_, i) => NbdClient.open(place, i % 2 === 0 ? 'Alice' : 'Bob')),
  )
  t.teardown(() => {
    for (const client of clients) client.destroy('the test is over')
  })
  const block = (i: number): Buffer => Buffer.alloc(4096, `${i},`)
  await Promise.all(clients.map((client, i) => client.write(i * 4096, block(i), false)))
  await Promise.all(clients.map((client) => client.flush()))
  const back = await Promise.all(clients.map((client, i) => client.read(i * 4096, 4096)))
  back.forEach((bytes, i) => void t.true(bytes.equals(block(i))))
  const { exports, connections } = await listed(cluster)
  t.is(connections.length, 400)
  t.deepEqual(exports.map(({ name, connections: count }) => [name, count]).sort(), [
    ['Alice', 200],
    ['Bob', 200],
  ])
})

/**
 * A second node holds the copies and is stopped (SIGSTOP): the write that needs it is under way when the first one is asked to
 * end. New requests are answered ESHUTDOWN meanwhile; when the second one goes on the write is answered.
 */
needing()(
  'asked to stop: what is under way is answered, what is new is told so, then it closes',
  async (t) => {
    const options = ['--nbd-drain', '20']
    const cluster = await startCluster(t, { nodes: 2, copies: 2, place: () => ({ options }) })
    await cluster.dog('vdi create', 'Alice', '8M')
    const node = cluster.node(0)
    const client = await NbdClient.open({ host: node.host, port: node.place.nbdPort }, 'Alice')
    await client.write(0, Buffer.alloc(4096, 1), true)
    cluster.node(1).signal('SIGSTOP')
    t.teardown(() => cluster.node(1).signal('SIGCONT'))
    const written = client.write(4096, Buffer.alloc(4096, 2), true)
    const stopped = node.stop()
    // One sent a moment too early waits with the write.
    let isTold = false
    const told = (error: unknown): void => {
      isTold ||= error instanceof NbdRefused && error.errno === ESHUTDOWN
    }
    await until('that new requests are refused', 10_000, async () => {
      client.flush().catch(told)
      return isTold
    })
    cluster.node(1).signal('SIGCONT')
    await t.notThrowsAsync(written)
    t.is((await stopped)?.code, 0)
    t.false(client.alive)
  },
)

needing()(
  'a client that reads nothing does not hold up the end for longer than it may',
  async (t) => {
    const { cluster, place } = await served(t, '[nbd]\ndrain = 1\n')
    const socket = createConnection(place)
    t.teardown(() => socket.destroy())
    await begun(socket)
    const read = ask({ type: Command.READ, length: MIB })
    socket.write(Buffer.concat(Array<Buffer>(64).fill(read)))
    socket.pause()
    await until('that its replies wait', 10_000, async () => {
      const { exports } = await listed(cluster)
      return (exports.find(({ name }) => name === 'Alice')?.operations.read?.count ?? 0) > 0
    })
    t.is((await cluster.node(0).stop())?.code, 0)
  },
)

/** A raw connection in transmission. */
async function begun(socket: Socket): Promise<void> {
  socket.write(Buffer.concat([HELLO, option(Option.GO, infoData('Alice'))]))
  let got = Buffer.alloc(0)
  while (!got.includes(optionAck(Option.GO))) {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    got = Buffer.concat([got, chunk])
  }
  if (!optionTranscript(got).at(-1)?.endsWith('ACK')) throw new Error('not opened')
}

function optionAck(id: number): Buffer {
  return Buffer.concat([u32(id), u32(Rep.ACK), u32(0)])
}

needing()('a connection without a request ends after the idle time of the file', async (t) => {
  const { cluster, place } = await served(t, '[nbd]\nidle = 1\n')
  const socket = createConnection(place)
  await begun(socket)
  await once(socket, 'close')
  t.true((await cluster.node(0).logTail()).includes('no request for 1 s'))
})
