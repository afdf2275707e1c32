/** NBD over TLS with libnbd's and QEMU's tools: certificates, client certificates, pre-shared keys. */
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import type { ExecutionContext } from 'ava'
import { Option } from '../../src/wire/nbd/constants.js'
import { certificates } from './support/certificates.js'
import { nbdcopy, nbdinfo } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { scratch } from './support/owner.js'
import { run, start, until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const realTest = needing('nbdinfo', 'nbdcopy', 'qemu-img', 'openssl')

async function served(t: ExecutionContext, ...options: string[]) {
  const cluster = await startCluster(t, { nodes: 1, copies: 1, place: () => ({ options }) })
  await cluster.dog('vdi create', 'Alice', '8M')
  const { host, place } = cluster.node(0)
  return { cluster, address: `${host}:${place.nbdPort}` }
}

realTest('encrypted with certificates: data go in and out, and nothing in the clear', async (t) => {
  const pki = await certificates(t)
  const { cluster, address } = await served(t, '--nbd-tls-certificates', pki)
  const content = `${pki}/content`
  await writeFile(content, randomBytes(8 * MIB))
  const uri = `nbds://${address}/Alice?tls-certificates=${pki}`
  await nbdcopy(content, uri)
  await nbdcopy(uri, `${pki}/back`)
  await run(['cmp', content, `${pki}/back`])
  const credentials = `tls-creds-x509,id=tls,dir=${pki},endpoint=client`
  const [host, port] = address.split(':')
  const image = `driver=nbd,server.type=inet,server.host=${host},server.port=${port},export=Alice,tls-creds=tls`
  await run([
    'qemu-img',
    'compare',
    '--object',
    credentials,
    '--image-opts',
    image,
    `driver=raw,file.driver=file,file.filename=${content}`,
  ])
  const refused = await t.throwsAsync(nbdinfo(cluster.uri('Alice')))
  t.regex(refused?.message ?? '', /TLS/i)
})

realTest('with --nbd-tls on a client may stay in the clear', async (t) => {
  const pki = await certificates(t)
  const { cluster, address } = await served(t, '--nbd-tls', 'on', '--nbd-tls-certificates', pki)
  t.is((await nbdinfo(cluster.uri('Alice')))['export-size'], 8 * MIB)
  const uri = `nbds://${address}/Alice?tls-certificates=${pki}`
  t.is((await nbdinfo(uri))['export-size'], 8 * MIB)
})

realTest('clients without the right certificate are refused when they are verified', async (t) => {
  const pki = await certificates(t)
  const options = ['--nbd-tls-certificates', pki, '--nbd-tls-verify-peer']
  const { address } = await served(t, ...options)
  const uri = (directory: string) => `nbds://${address}/Alice?tls-certificates=${directory}`
  t.is((await nbdinfo(uri(pki)))['export-size'], 8 * MIB)
  // Of another authority, and with the certificate of nobody.
  const stranger = await certificates(t)
  await run(['cp', `${pki}/ca-cert.pem`, stranger])
  await t.throwsAsync(nbdinfo(uri(stranger)))
  const nobody = `${await scratch(t)}/nobody`
  await mkdir(nobody)
  await run(['cp', `${pki}/ca-cert.pem`, nobody])
  await t.throwsAsync(nbdinfo(uri(nobody)))
  t.is((await nbdinfo(uri(pki)))['export-size'], 8 * MIB)
})

realTest('a pre-shared key opens the door to who has it', async (t) => {
  const directory = await scratch(t)
  const [keys, wrong] = [`${directory}/keys.psk`, `${directory}/wrong.psk`]
  await writeFile(keys, `# clients\nalice:${randomBytes(32).toString('hex')}\n`)
  await writeFile(wrong, `alice:${randomBytes(32).toString('hex')}\n`)
  const { address } = await served(t, '--nbd-tls-psk', keys)
  const uri = (name: string, file: string) => `nbds://${name}@${address}/Alice?tls-psk-file=${file}`
  t.is((await nbdinfo(uri('alice', keys)))['export-size'], 8 * MIB)
  await t.throwsAsync(nbdinfo(uri('alice', wrong)))
  t.is((await nbdinfo(uri('alice', keys)))['export-size'], 8 * MIB)
})

realTest('a server with certificates and keys lets both kinds of clients in', async (t) => {
  const pki = await certificates(t)
  const keys = `${pki}/keys.psk`
  await writeFile(keys, `alice:${randomBytes(32).toString('hex')}\n`)
  const { address } = await served(t, '--nbd-tls-certificates', pki, '--nbd-tls-psk', keys)
  for (const uri of [
    `nbds://${address}/Alice?tls-certificates=${pki}`,
    `nbds://alice@${address}/Alice?tls-psk-file=${keys}`,
  ]) {
    t.is((await nbdinfo(uri))['export-size'], 8 * MIB)
  }
})

needing('gnutls-cli', 'openssl')(
  "GnuTLS's own client upgrades by hand, and reads the list of exports behind TLS",
  async (t) => {
    const pki = await certificates(t)
    const { address } = await served(t, '--nbd-tls-certificates', pki)
    const [host = '', port = ''] = address.split(':')
    const trust = ['--x509cafile', `${pki}/ca-cert.pem`, '--verify-hostname', 'localhost']
    const client = start(['gnutls-cli', '--starttls', ...trust, '-p', port, host], {
      interactive: true,
    })
    t.teardown(() => client.kill('SIGKILL'))
    let heard = ''
    client.child.stdout?.on('data', (chunk: Buffer) => {
      heard += chunk.toString('latin1')
    })
    await until('the greeting', 20_000, () => heard.includes('IHAVEOPT'))
    client.child.stdin?.write(Buffer.concat([u32(3), option(Option.STARTTLS)]))
    await until('the consent', 20_000, () => heard.includes('\0\x03\xe8\x89\x04\x55\x65\xa9'))
    t.false(heard.includes('Alice'))
    client.kill('SIGALRM')
    await until('TLS', 20_000, () => heard.includes('- Options:'))
    client.child.stdin?.write(option(Option.LIST))
    await until('the list', 20_000, () => heard.includes('Alice'))
    client.child.stdin?.end()
    await client.done
    t.pass()
  },
)

/** IHAVEOPT, the option's number, no data. */
function option(number: number): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(0)])
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
