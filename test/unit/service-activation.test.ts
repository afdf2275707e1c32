/** Sockets passed in by a service manager: whose they are, what for, and what is refused. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { forgetSockets, NO_SOCKETS, passedSockets } from '../../src/bin/service/activation.js'
import { checkPort, covers, portPlaces } from '../../src/bin/service/listen-places.js'
import { NodeNetwork } from '../../src/world/node/network.js'

const env = (count: string, names?: string, pid = '7'): Record<string, string> => ({
  LISTEN_PID: pid,
  LISTEN_FDS: count,
  ...(names !== undefined && { LISTEN_FDNAMES: names }),
})

test('sockets go to the doors they are named for; those without a name are for NBD', (t) => {
  t.deepEqual(passedSockets(env('3', 'nbd:sheepdog:nbd'), 7), {
    ...NO_SOCKETS,
    nbd: [3, 5],
    sheepdog: [4],
  })
  t.deepEqual(passedSockets(env('2'), 7), { ...NO_SOCKETS, nbd: [3, 4] })
  t.deepEqual(passedSockets(env('1', 'unknown'), 7), { ...NO_SOCKETS, nbd: [3] })
  t.deepEqual(passedSockets(env('2', 'iscsi:nbd'), 7), { ...NO_SOCKETS, iscsi: [3], nbd: [4] })
  t.deepEqual(passedSockets({}, 7), NO_SOCKETS)
})

test('sockets passed to another process are not taken', (t) => {
  t.deepEqual(passedSockets(env('1', 'nbd', '8'), 7), NO_SOCKETS)
  t.deepEqual(passedSockets({ LISTEN_FDS: '1' }, 7), NO_SOCKETS)
})

test('wrong numbers and names are refused with what would be right', (t) => {
  const message = (vars: Record<string, string>): string =>
    t.throws(() => passedSockets(vars, 7))?.message ?? ''
  t.regex(message(env('many')), /LISTEN_FDS is 'many'/)
  t.regex(message(env('65')), /up to 64/)
  t.regex(message(env('-1')), /LISTEN_FDS is '-1'/)
  t.regex(message(env('2', 'nbd')), /1 names for 2 sockets/)
  t.regex(message(env('1', 'http')), /'http', which is no door: FileDescriptorName= is one of nbd,/)
})

test('children are not told of the sockets', (t) => {
  const vars: Record<string, string | undefined> = { ...env('1', 'nbd'), PATH: '/bin' }
  forgetSockets(vars)
  t.deepEqual(vars, { PATH: '/bin' })
})

test('an address is not bound again when its socket was passed in', (t) => {
  const at = (host: string, port: number) => ({ host, port })
  t.true(covers(at('::', 10809), at('127.0.0.1', 10809)))
  t.true(covers(at('127.0.0.1', 10809), at('127.0.0.1', 10809)))
  t.false(covers(at('127.0.0.1', 10809), at('::', 10809)))
  t.false(covers(at('::', 10810), at('::', 10809)))
  t.true(covers({ path: '/run/a' }, { path: '/run/a' }))
  t.false(covers({ path: '/run/a' }, { path: '/run/b' }))
  t.false(covers({ path: '/run/a' }, at('::', 10809)))
})

test('the port that other nodes know must be among the sockets passed in for it', (t) => {
  t.deepEqual(portPlaces([], { host: '::', port: 7000 }), [{ host: '::', port: 7000 }])
  t.deepEqual(portPlaces([4], { host: '::', port: 7000 }), [{ fd: 4 }])
  t.notThrows(() => checkPort([], [], 7000))
  t.notThrows(() => checkPort([4], [{ host: '::', port: 7000 }, { path: '/s' }], 7000))
  const error = t.throws(() => checkPort([4], [{ host: '::', port: 7001 }], 7000))
  t.regex(error?.message ?? '', /announces: give ListenStream= of the socket unit and -p the same/)
})

/**
 * Runs `script` with a socket that listens at `where` as its descriptor 3, and nobody else to accept; resolves to what it
 * printed. Who opened it is killed, or it would take the socket's file with it.
 */
async function withPassed(where: object, script: string, hidden = ''): Promise<string> {
  const opener = `
    import { spawn } from 'node:child_process'
    import net from 'node:net'
    const server = net.createServer().listen(${JSON.stringify(where)}, () => {
      const stdio = ['ignore', 'inherit', 'inherit', server._handle.fd]
      const heir = spawn(process.execPath, ['--input-type=module', '-e', process.env.HEIR], { stdio })
      heir.once('spawn', () => process.kill(process.pid, 'SIGKILL'))
    })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', opener], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, SHEEPDOG_WITHOUT: hidden, HEIR: script },
  })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  await once(child, 'close')
  return text
}

const NETWORK = fileURLToPath(new URL('../../src/world/node/network.js', import.meta.url))
/** A server on what was passed in, closed and opened again as by the next life of a node. */
const TWICE = `
  import net from 'node:net'
  import { NodeNetwork } from ${JSON.stringify(NETWORK)}
  const network = new NodeNetwork()
  for (let life = 1; life <= 2; life++) {
    const greet = (connection) => { connection.write(Buffer.from('life ' + life)); connection.end() }
    const listener = await network.listen({ fd: 3 }, greet).catch((error) => error)
    if (listener instanceof Error) { console.log(listener.message); break }
    const { address } = listener
    const heard = await new Promise((resolve) => {
      const socket = net.connect('path' in address ? { path: address.path } : address)
      socket.on('data', (bytes) => resolve(bytes.toString()))
    })
    console.log('path' in address ? address.path : address.port, heard)
    await listener.close()
  }
  process.exit(0)`

test('a TCP socket that was passed in serves life after life of a node', async (t) => {
  const text = await withPassed({ host: '127.0.0.1', port: 0 }, TWICE)
  t.regex(text, /^(\d+) life 1\n\1 life 2\n$/)
})

test('a unix socket that was passed in is known by its name, and its file stays', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'passed-'))
  const path = join(directory, 'nbd.sock')
  t.is(await withPassed({ path }, TWICE), `${path} life 1\n${path} life 2\n`)
  t.true(existsSync(path))
  rmSync(directory, { recursive: true })
})

test('without the binding a passed socket serves one life, and the service is to start anew', async (t) => {
  const text = await withPassed({ host: '127.0.0.1', port: 0 }, TWICE, 'service')
  t.regex(text, /^\d+ life 1\n.*the service has to be started anew/)
})

test('a descriptor that is no listening socket is refused by its number', async (t) => {
  const fd = openSync('/dev/null', 'r')
  const error = await t.throwsAsync(new NodeNetwork().listen({ fd }, () => undefined))
  closeSync(fd)
  const text = new RegExp(`descriptor ${fd}: .*it must be a listening stream socket`)
  t.regex(error?.message ?? '', text)
})
