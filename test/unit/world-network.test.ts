/** NodeNetwork over real sockets, loopback and unix only. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { NodeNetwork } from '../../src/world/node/network.js'
import type { Address, Connection, Listener } from '../../src/world/world.js'

const network = new NodeNetwork()
const dir = fs.mkdtempSync(join(tmpdir(), 'net-'))
const started: ChildProcess[] = []
test.after.always(() => {
  for (const child of started) child.kill('SIGKILL')
  fs.rmSync(dir, { recursive: true })
})
const anyPort: Address = { host: '127.0.0.1', port: 0 }

let made = 0
const socketPath = (): string => join(dir, `s${made++}`)

/** Collects what arrives on a connection. */
class Ear {
  readonly chunks: Buffer[] = []
  bytes = 0
  drains = 0
  closes = 0
  error: Error | undefined
  readonly closed: Promise<void>

  constructor(connection: Connection, heard: (chunk: Buffer) => void = () => undefined) {
    this.closed = new Promise((resolve) =>
      connection.on({
        data: (chunk) => {
          this.chunks.push(chunk)
          this.bytes += chunk.length
          heard(chunk)
        },
        drain: () => {
          this.drains++
        },
        close: (error) => {
          this.closes++
          this.error = error
          resolve()
        },
      }),
    )
  }

  text(): string {
    return Buffer.concat(this.chunks).toString('latin1')
  }
}

async function until(condition: () => boolean): Promise<boolean> {
  for (let i = 0; i < 300 && !condition(); i++) await new Promise((go) => setTimeout(go, 10))
  return condition()
}

/** A connected pair; the server's side is the one `listen` gave. */
async function pair(at: Address): Promise<[Connection, Connection, Listener]> {
  let accepted: (connection: Connection) => void = () => undefined
  const server = new Promise<Connection>((resolve) => {
    accepted = resolve
  })
  const listener = await network.listen(at, (connection) => accepted(connection))
  const client = await network.connect(listener.address, 5000)
  return [client, await server, listener]
}

/** Runs a program in a process of its own and waits for its first line. */
async function startProcess(script: string): Promise<[ChildProcess, string]> {
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  started.push(child)
  const [line] = await once(child.stdout, 'data')
  return [child, String(line).trim()]
}

for (const kind of ['tcp', 'unix'] as const) {
  const at = (): Address => (kind === 'tcp' ? anyPort : { path: socketPath() })

  test(`${kind}: pieces arrive whole and in order, both ways`, async (t) => {
    const [client, server, listener] = await pair(at())
    const heard = new Ear(server, (chunk) => server.write(chunk))
    const back = new Ear(client)
    client.write(Buffer.from('a'))
    client.writeAll([Buffer.from('bc'), new Uint8Array([100]), Buffer.alloc(0), Buffer.from('ef')])
    t.true(await until(() => back.bytes === 6))
    t.is(heard.text(), 'abcdef')
    t.is(back.text(), 'abcdef')
    client.destroy()
    await Promise.all([heard.closed, back.closed])
    t.deepEqual([heard.closes, back.closes, heard.error, back.error], [1, 1, undefined, undefined])
    await listener.close()
  })

  test(`${kind}: what waits is sent before an ended connection closes`, async (t) => {
    const [client, server, listener] = await pair(at())
    // The client talks on to the last: a plain close would answer what is unread with a reset.
    const back = new Ear(client, () => client.write(Buffer.alloc(100_000)))
    const heard = new Ear(server)
    server.pause()
    server.write(Buffer.alloc(8 << 20, 'x'))
    server.end()
    await Promise.all([back.closed, heard.closed])
    t.is(back.bytes, 8 << 20)
    t.is(back.error, undefined)
    t.is(heard.error, undefined)
    t.is(heard.bytes, 0, 'who has ended hears no more')
    await listener.close()
  })

  test(`${kind}: a slow reader stops the writer, and drain lets it go on`, async (t) => {
    const [client, server, listener] = await pair(at())
    const heard = new Ear(server)
    const ear = new Ear(client)
    server.pause()
    let written = 0
    while (written < 64 << 20) {
      written += 65536
      if (!client.write(Buffer.alloc(65536))) break
    }
    t.true(written < 16 << 20, 'bounded')
    await new Promise((go) => setTimeout(go, 50))
    const waiting = heard.bytes
    t.true(waiting < written)
    server.resume()
    t.true(await until(() => heard.bytes === written))
    t.true(await until(() => ear.drains > 0))
    client.destroy()
    await heard.closed
    await listener.close()
  })

  test(`${kind}: closing stops accepting at once and leaves connections alone`, async (t) => {
    const [client, server, listener] = await pair(at())
    const back = new Ear(client)
    await listener.close()
    await listener.close()
    const code = kind === 'tcp' ? 'ECONNREFUSED' : 'ENOENT'
    await t.throwsAsync(network.connect(listener.address, 1000), { code })
    server.write(Buffer.from('still here'))
    t.true(await until(() => back.text() === 'still here'))
    client.destroy()
    server.destroy()
  })

  test(`${kind}: writing to a connection that is over is harmless and never says wait`, async (t) => {
    const [client, server, listener] = await pair(at())
    const ear = new Ear(client)
    server.destroy()
    await ear.closed
    t.true(client.write(Buffer.from('x')))
    t.true(client.writeAll([Buffer.from('x'), Buffer.from('y')]))
    client.end()
    client.destroy()
    t.is(ear.closes, 1)
    await listener.close()
  })

  test(`${kind}: an owner who comes after the end still hears of it, once`, async (t) => {
    const [client, server, listener] = await pair(at())
    client.destroy()
    await new Promise((go) => setTimeout(go, 20))
    const ear = new Ear(client)
    t.is(ear.closes, 0, 'not inside `on`')
    await ear.closed
    t.is(ear.closes, 1)
    server.destroy()
    await listener.close()
  })
}

test('a reset by the other side is told as the reason', async (t) => {
  const listener = await network.listen(anyPort, (connection) => {
    ear = new Ear(connection)
  })
  let ear: Ear | undefined
  const address = listener.address as { host: string; port: number }
  const client = net.connect(address)
  await once(client, 'connect')
  t.true(await until(() => ear !== undefined))
  client.resetAndDestroy()
  await ear?.closed
  t.is((ear?.error as NodeJS.ErrnoException | undefined)?.code, 'ECONNRESET')
  await listener.close()
})

test('the remote name is for people', async (t) => {
  const [client, server, listener] = await pair(anyPort)
  t.is(client.remote, `127.0.0.1:${(listener.address as { port: number }).port}`)
  t.regex(server.remote, /^127\.0\.0\.1:\d+$/)
  client.destroy()
  await listener.close()
  const [near, far, local] = await pair({ path: socketPath() })
  t.deepEqual([near.remote, far.remote], ['unix', 'unix'])
  near.destroy()
  await local.close()
})

test('a connection that nobody answers ends in ETIMEDOUT', async (t) => {
  // A server that is stopped in its tracks, with room for very few in its queue.
  const [child, port] = await startProcess(`
    const server = require('node:net').createServer()
    server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
      require('node:fs').writeSync(1, server.address().port + '\\n')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    })`)
  const opened: Connection[] = []
  let failure: NodeJS.ErrnoException | undefined
  for (let i = 0; i < 10 && failure === undefined; i++) {
    await network.connect({ host: '127.0.0.1', port: Number(port) }, 200).then(
      (connection) => opened.push(connection),
      (error) => {
        failure = error
      },
    )
  }
  child.kill('SIGKILL')
  for (const connection of opened) connection.destroy()
  t.is(failure?.code, 'ETIMEDOUT')
  t.regex(failure?.message ?? '', /127\.0\.0\.1:\d+/)
})

test('a taken port is refused', async (t) => {
  const listener = await network.listen(anyPort, () => undefined)
  await t.throwsAsync(
    network.listen(listener.address, () => undefined),
    { code: 'EADDRINUSE' },
  )
  await listener.close()
  await (await network.listen(listener.address, () => undefined)).close()
})

test('the socket file of a killed server is replaced, a live one is not', async (t) => {
  const path = socketPath()
  const [child] = await startProcess(
    `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`,
  )
  await t.throwsAsync(
    network.listen({ path }, () => undefined),
    { code: 'EADDRINUSE' },
  )
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.true(fs.existsSync(path))
  const [client, , listener] = await pair({ path })
  client.destroy()
  await listener.close()
  t.false(fs.existsSync(path))
})

test('a file that is no socket is never replaced by one', async (t) => {
  const path = socketPath()
  fs.writeFileSync(path, 'precious')
  await t.throwsAsync(
    network.listen({ path }, () => undefined),
    { code: 'EADDRINUSE' },
  )
  t.is(fs.readFileSync(path, 'utf8'), 'precious')
})

test('a socket path the kernel would cut is refused by name', async (t) => {
  const path = join(dir, 'x'.repeat(108))
  const expected = { code: 'ENAMETOOLONG', message: /xxx/ }
  await t.throwsAsync(
    network.listen({ path }, () => undefined),
    expected,
  )
  await t.throwsAsync(network.connect({ path }, 100), expected)
  await t.throwsAsync(network.connect({ path: '' }, 100), { code: 'EINVAL' })
})
