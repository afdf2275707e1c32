/**
 * The way `dog nbd attach --tls-...` goes to a real door, with this test in the kernel's place at the end of the pair: what is
 * carried, and which servers are not believed.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import type { ExecutionContext } from 'ava'
import { type DialFailed, dial, type OpenExport } from '../../src/dog/nbd-dial.js'
import { NodeClock } from '../../src/world/node/clock.js'
import { NodeNbdKernel } from '../../src/world/node/nbd-kernel.js'
import { NodeNetwork } from '../../src/world/node/network.js'
import { NodeRandom } from '../../src/world/node/random.js'
import { tlsClient } from '../../src/world/node/tls-client.js'
import type { TlsKeys } from '../../src/world/tls-client.js'
import { certificates } from './support/certificates.js'
import { startCluster } from './support/cluster.js'
import { scratch } from './support/owner.js'
import { run } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const [READ, WRITE, DISCONNECT] = [0, 1, 2]
const REPLY_BYTES = 16
const realTest = needing('openssl')

const world = {
  ...{ clock: new NodeClock(), network: new NodeNetwork(), random: new NodeRandom() },
  ...{ nbdKernel: new NodeNbdKernel(), tlsClient },
}

interface Door {
  open(tls: TlsKeys): Promise<OpenExport>
  /** The trouble and the words of a refusal. */
  refusal(tls: TlsKeys): Promise<readonly [string, string]>
}

async function door(t: ExecutionContext, ...options: string[]): Promise<Door> {
  const cluster = await startCluster(t, { nodes: 1, copies: 1, place: () => ({ options }) })
  await cluster.dog('vdi create', 'Alice', '16M')
  const { host, place } = cluster.node(0)
  const open = (tls: TlsKeys): Promise<OpenExport> =>
    dial(world, { host, port: place.nbdPort! }, { exportName: 'Alice', tls })
  return {
    open,
    refusal: async (tls) => {
      const error = await t.throwsAsync<DialFailed>(open(tls))
      return [error?.trouble ?? '', error?.message ?? '']
    },
  }
}

/** Sends requests as the kernel would, and returns everything up to `bytes`. */
function conversation({ connection }: OpenExport) {
  let heard: Buffer[] = []
  let length = 0
  let wake: () => void = () => undefined
  const closed = new Promise<void>((resolve) => {
    connection.on({
      data: (chunk) => {
        heard.push(chunk)
        length += chunk.length
        wake()
      },
      drain: () => undefined,
      close: () => {
        resolve()
        wake()
      },
    })
  })
  const hear = async (bytes: number): Promise<Buffer> => {
    while (length < bytes) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
    const all = Buffer.concat(heard)
    heard = [all.subarray(bytes)]
    length -= bytes
    return all.subarray(0, bytes)
  }
  return { send: (...pieces: Buffer[]) => connection.writeAll(pieces), hear, closed }
}

//  magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u32
function request(type: number, offset = 0, length = 0): Buffer {
  const bytes = Buffer.alloc(28)
  bytes.writeUInt32BE(0x25609513)
  bytes.writeUInt16BE(type, 6)
  bytes.writeBigUInt64BE(BigInt(offset), 16)
  bytes.writeUInt32BE(length, 24)
  return bytes
}

async function writeAndRead(t: ExecutionContext, open: OpenExport): Promise<void> {
  const { send, hear, closed } = conversation(open)
  const data = randomBytes(8 * MIB)
  for (let at = 0; at < data.length; at += MIB) {
    send(request(WRITE, at, MIB), data.subarray(at, at + MIB))
  }
  const replies = await hear(8 * REPLY_BYTES)
  for (let i = 0; i < 8; i++) t.is(replies.readUInt32BE(i * REPLY_BYTES + 4), 0)
  // All asked for before the first answer is looked at: more than the pair and both sockets hold.
  for (let at = 0; at < data.length; at += 4 * MIB) send(request(READ, at, 4 * MIB))
  for (let at = 0; at < data.length; at += 4 * MIB) {
    t.is((await hear(REPLY_BYTES)).readUInt32BE(4), 0)
    t.true((await hear(4 * MIB)).equals(data.subarray(at, at + 4 * MIB)))
  }
  send(request(DISCONNECT))
  await Promise.all([closed, open.relayed])
}

realTest('with certificates: what is written through the pair comes back', async (t) => {
  const pki = await certificates(t)
  const keys = ['--nbd-tls-certificates', pki, '--nbd-tls-verify-peer']
  const { open, refusal } = await door(t, ...keys)
  await writeAndRead(t, await open({ certificates: pki }))

  const [trouble, words] = await refusal({ certificates: pki, hostname: 'elsewhere.example' })
  t.is(trouble, 'keys')
  t.regex(words, /elsewhere\.example/)
  const stranger = await certificates(t)
  t.regex((await refusal({ certificates: stranger }))[1], /self.signed|issuer|certificate/i)
  const nobody = `${await scratch(t)}/nobody`
  await mkdir(nobody)
  t.regex((await refusal({ certificates: nobody }))[1], /ENOENT.*ca-cert\.pem/)
  await run(['cp', `${pki}/ca-cert.pem`, nobody])
  const [unknown, why] = await refusal({ certificates: nobody })
  t.is(unknown, 'keys')
  t.regex(why, /certificate required|goes after TLS/i)
  await run(['cp', `${pki}/client-cert.pem`, nobody])
  t.regex((await refusal({ certificates: nobody }))[1], /has no client-key\.pem/)
  // A key where the server has certificates: nothing of the list of authorities counts then.
  await writeFile(`${nobody}/keys`, 'alice:00112233445566778899aabbccddeeff\n')
  t.is((await refusal({ preSharedKeys: `${nobody}/keys` }))[0], 'keys')
})

realTest('with a pre-shared key: what is written through the pair comes back', async (t) => {
  const directory = await scratch(t)
  const [keys, wrong] = [`${directory}/keys`, `${directory}/wrong`]
  const [alice, bob] = [randomBytes(32).toString('hex'), randomBytes(16).toString('hex')]
  await writeFile(keys, `alice:${alice}\nbob:${bob}\n`)
  await writeFile(wrong, `alice:${bob}\n`)
  const { open, refusal } = await door(t, '--nbd-tls-psk', keys)
  await writeAndRead(t, await open({ preSharedKeys: keys, user: 'bob' }))
  t.regex((await refusal({ preSharedKeys: keys }))[1], /several users: say which/)
  t.regex((await refusal({ preSharedKeys: keys, user: 'carol' }))[1], /no key of 'carol'/)
  t.is((await refusal({ preSharedKeys: wrong }))[0], 'keys')
  t.is((await refusal({ certificates: directory }))[0], 'keys')
})
