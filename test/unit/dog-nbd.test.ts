/** `dog nbd attach|detach|refresh|devices` against a kernel and servers that are made of objects (support/fake-nbd-kernel.ts). */
import test, { type ExecutionContext } from 'ava'
import { backendText, parseBackend, parseServer } from '../../src/dog/nbd-backend.js'
import { Rep, TransmissionFlag } from '../../src/wire/nbd/constants.js'
import * as nl from '../../src/wire/netlink/messages.js'
import { encodeConnect } from '../../src/wire/netlink/nbd.js'
import { A, B, MEBIBYTE, type Rig, type Run, rig, server, status } from './support/dog-nbd-rig.js'
import { type FakeServer, WRITABLE } from './support/fake-nbd-kernel.js'

test('attaching prints the device, and the kernel learns size, flags, sockets and where it comes from', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set('127.0.0.1:10809', server())
  t.deepEqual(await status(dog('attach', 'Alice')), [0, '/dev/nbd0\n', ''])
  const device = kernel.attached.get(0)!
  t.is(device.sizeBytes, 64 * MEBIBYTE)
  t.is(device.backend, 'nbd://127.0.0.1:10809/Alice')
  t.is(device.request.get(5), WRITABLE)
  t.is(device.request.get(3), 512)
  t.is(device.request.get(8), undefined, 'I/O fails when the server goes and nobody dials again')
  t.deepEqual(kernel.linksOf(0), ['127.0.0.1:10809'])
})

test('several connections go to one server, the first that lets us', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(B, server())
  const run = dog(
    'attach',
    '-s',
    `${A},${B}`,
    '-C',
    '3',
    '-t',
    '20',
    'Alice',
    '/dev/nbd2',
    '--json',
  )
  t.is(await run.done, 0)
  t.deepEqual(JSON.parse(run.out()), {
    ...{ device: '/dev/nbd2', export: 'Alice', server: B, sizeBytes: 64 * MEBIBYTE },
    ...{ readOnly: false, connections: 3, kept: false },
  })
  t.deepEqual(kernel.linksOf(2), [B, B, B])
  t.deepEqual(kernel.dialled, [A, B, B, B])
  t.is(kernel.attached.get(2)!.request.get(4), 20)
})

test('a server elsewhere that is silent counts as dead; one on this host is only slow', async (t) => {
  const { kernel, dog } = rig()
  for (const where of ['127.0.0.1:1', '::1:1', '/run/nbd', A]) kernel.servers.set(where, server())
  for (const where of ['127.0.0.1:1', '[::1]:1', 'unix:/run/nbd']) {
    t.is(await dog('attach', '-s', where, 'Alice').done, 0, where)
  }
  t.is(await dog('detach', '/dev/nbd0').done, 0)
  t.is(await dog('attach', '-s', A, 'Alice').done, 0)
  t.deepEqual(kernel.patience, [0, 0, 0, 30_000])
})

test('a server that does not promise one disk over several connections gets one', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, server(64, TransmissionFlag.HAS_FLAGS))
  const [code, , errors] = await status(dog('attach', '-s', A, '-C', '2', 'Alice'))
  t.is(code, 1)
  t.regex(errors, /does not take several connections/)
  t.is(kernel.attached.size, 0)
})

test('read-only is what the server says, or the user', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, server())
  kernel.servers.set(B, server(64, WRITABLE | TransmissionFlag.READ_ONLY))
  t.is(await dog('attach', '-s', A, '-R', 'Alice').done, 0)
  t.is(await dog('attach', '-s', B, 'Alice').done, 0)
  const devices = await kernel.devices()
  t.deepEqual(
    devices.map(({ readOnly }) => readOnly),
    [true, true, false],
  )
})

function refusing(type: number): (rig: Rig) => void {
  return ({ kernel }) => {
    kernel.servers.set(A, { ...server(), refusal: type })
  }
}

function servedBy(one: FakeServer): (rig: Rig) => void {
  return ({ kernel }) => {
    kernel.servers.set(A, one)
  }
}

function lacking(what: 'isLoaded' | 'isRoot' | 'isReadable'): (rig: Rig) => void {
  return ({ kernel }) => {
    kernel[what] = false
  }
}

const REFUSALS: readonly (readonly [string, (rig: Rig) => void, number, RegExp])[] = [
  ['no such VDI', servedBy({ exports: new Map() }), 5, /no such export/],
  ['TLS', refusing(Rep.ERR_TLS_REQD), 1, /wants TLS\n.*--tls-certificates/],
  ['the rules', refusing(Rep.ERR_POLICY), 1, /because/],
  ['nobody', ({ kernel }) => kernel.servers.clear(), 1, /--nbd/],
  ['no NBD', servedBy({ ...server(), rubbish: Buffer.alloc(18, 'SSH') }), 1, /no NBD server/],
  ['no module', lacking('isLoaded'), 2, /modprobe nbd/],
  ['no privilege', lacking('isRoot'), 2, /root/],
  ['a disk that cannot be read', lacking('isReadable'), 2, /cannot be read/],
]

for (const [title, spoil, code, words] of REFUSALS) {
  test(`attaching fails with a reason and leaves nothing attached: ${title}`, async (t) => {
    const one = rig()
    one.kernel.servers.set(A, server())
    spoil(one)
    const [found, out, errors] = await status(one.dog('attach', '-s', A, 'Alice'))
    t.deepEqual([found, out], [code, ''])
    t.regex(errors, words)
    t.is(one.kernel.attached.size, 0)
  })
}

test('a device that is in use is not taken', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, server())
  t.is(await dog('attach', '-s', A, 'Alice', '/dev/nbd1').done, 0)
  const [code, , errors] = await status(dog('attach', '-s', A, 'Alice', 'nbd1'))
  t.is(code, 3)
  t.regex(errors, /in use/)
})

test('the handshake takes its bytes as they come', async (t) => {
  for (const pieceBytes of [1, 2, 7, 19, 100]) {
    const { kernel, dog } = rig()
    kernel.servers.set(A, { ...server(), pieceBytes })
    t.is(await dog('attach', '-s', A, 'Alice').done, 0, `${pieceBytes} at a time`)
  }
})

test('detaching makes durable first, leaves what is in use alone, and takes a name or a device', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, server())
  await dog('attach', '-s', A, 'Alice').done
  kernel.busy.add(0)
  const [code, , errors] = await status(dog('detach', 'Alice'))
  t.is(code, 1)
  t.regex(errors, /in use/)
  t.is(kernel.attached.size, 1)
  kernel.busy.clear()
  t.deepEqual(await status(dog('detach', 'Alice')), [0, '', ''])
  t.deepEqual(kernel.story, ['settled 0', 'disconnected 0'])
  const [missing, , reason] = await status(dog('detach', '/dev/nbd0'))
  t.is(missing, 5)
  t.regex(reason, /Nothing is attached/)
  t.is((await status(dog('detach', 'Bob')))[0], 5)
})

test('force detaches what is in use; of two devices with one VDI one must be named', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, server())
  await dog('attach', '-s', A, 'Alice').done
  await dog('attach', '-s', A, 'Alice').done
  t.regex((await status(dog('detach', 'Alice')))[2], /say which/)
  kernel.busy.add(1)
  t.is(await dog('detach', '-f', '/dev/nbd1').done, 0)
  t.deepEqual([...kernel.attached.keys()], [0])
})

test('refresh makes the device as large as the VDI, never smaller', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, server())
  await dog('attach', '-s', A, 'Alice').done
  kernel.servers.set(A, server(96))
  t.deepEqual(await status(dog('refresh', 'Alice')), [0, `/dev/nbd0 ${96 * MEBIBYTE}\n`, ''])
  t.is(kernel.attached.get(0)!.sizeBytes, 96 * MEBIBYTE)
  kernel.servers.set(A, server(32))
  t.is(await dog('refresh', 'Alice').done, 1)
  t.is(kernel.attached.get(0)!.sizeBytes, 96 * MEBIBYTE)
})

test('devices are shown with VDI, size, mode and keeper', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, server())
  await dog('attach', '-s', A, 'Alice').done
  const { devices } = JSON.parse((await status(dog('devices', '--json')))[1])
  t.deepEqual(devices, [
    {
      ...{ device: '/dev/nbd0', sizeBytes: 64 * MEBIBYTE, readOnly: false, keeper: 4711 },
      ...{ export: 'Alice', servers: [A], tls: false, backend: `nbd://${A}/Alice` },
    },
  ])
  t.regex(
    (await status(dog('devices')))[1],
    /^\/dev\/nbd0 +64 MB +rw +4711 +Alice at 10\.0\.0\.1:10809$/m,
  )
})

/** A keeper under way, on two connections to A with B as the other server. */
async function kept(t: ExecutionContext): Promise<Rig & { run: Run }> {
  const one = rig()
  one.kernel.servers.set(A, server())
  const run = one.dog('attach', '-s', `${A},${B}`, '-C', '2', '--persist', 'Alice')
  await one.clock.until('attached', () => run.out() !== '')
  t.deepEqual(one.kernel.linksOf(0), [A, A])
  t.true(one.kernel.attached.get(0)!.request.get(8)! > 86_400, 'I/O waits for a connection')
  return { ...one, run }
}

test('a keeper gives the kernel a connection for each that died, to whom lets it in', async (t) => {
  const { kernel, clock, dog, run } = await kept(t)
  kernel.kill(A)
  t.deepEqual(kernel.linksOf(0), [])
  await clock.sleep(60_000)
  t.deepEqual(kernel.linksOf(0), [])
  kernel.servers.set(B, server(80))
  await clock.until('two links', () => kernel.linksOf(0).length === 2)
  t.deepEqual(kernel.linksOf(0), [B, B])
  t.is(kernel.attached.get(0)!.sizeBytes, 80 * MEBIBYTE, 'it grew meanwhile')
  const dials = kernel.dialled.length
  await clock.sleep(60_000)
  t.is(kernel.dialled.length, dials, 'nothing more to do')
  t.is(await dog('detach', 'Alice').done, 0)
  t.is(await run.done, 0, 'the keeper ends with its device')
  t.true(run.log.some((line) => line.includes(`connected to ${B}`)))
})

test('a keeper does not connect a disk that became smaller', async (t) => {
  const { kernel, clock, dog, run } = await kept(t)
  kernel.kill(A)
  kernel.servers.set(A, server(32))
  await clock.sleep(60_000)
  t.deepEqual(kernel.linksOf(0), [])
  t.regex(run.errors(), /smaller/)
  kernel.servers.set(A, server(64))
  await clock.until('two links', () => kernel.linksOf(0).length === 2)
  await dog('detach', '-f', '/dev/nbd0').done
  t.is(await run.done, 0)
})

test('a device whose keeper died is taken over, if it is attached to the same; one that is kept is not', async (t) => {
  const { kernel, clock, dog } = rig()
  kernel.servers.set(A, server())
  const words = ['attach', '--persist', '-s', A, '-C', '2', 'Alice', '/dev/nbd1']
  await dog('attach', '-s', A, '-C', '2', 'Alice', '/dev/nbd1').done
  t.is(await dog(...words).done, 3, 'its keeper lives')
  kernel.pidLives = false
  kernel.kill(A)
  kernel.servers.set(A, {
    exports: new Map([...server().exports, ['Bob', server().exports.get('Alice')!]]),
  })
  t.is(await dog(...words.with(-2, 'Bob')).done, 3, 'attached to something else')
  const run = dog(...words)
  await clock.until('two links', () => kernel.linksOf(1).length === 2)
  t.is(run.out(), '/dev/nbd1\n')
  const dials = kernel.dialled.length
  await clock.sleep(60_000)
  t.is(kernel.dialled.length, dials, 'nothing more to do')
  await dog('detach', '-f', '/dev/nbd1').done
  t.is(await run.done, 0)
})

test("a keeper does not touch a device that is somebody else's now", async (t) => {
  const { kernel, clock, run } = await kept(t)
  const { backend: _, ...rest } = kernel.attached.get(0)!
  kernel.attached.set(0, { ...rest, backend: 'nbd://elsewhere:1/Bob' })
  kernel.kill(A)
  kernel.servers.set(A, server())
  await clock.until('the end', () => run.errors().includes('detached'))
  t.is(await run.done, 0)
  t.deepEqual(kernel.linksOf(0), [])
})

test('what a device comes from survives as text, whatever the name', (t) => {
  const servers = [
    { host: '10.0.0.1', port: 1 },
    { host: 'fe80::1', port: 10809 },
    { path: '/run/x' },
  ]
  for (const exportName of ['Alice', 'Alice@tag', 'a/b c,d%', 'größe']) {
    t.deepEqual(parseBackend(backendText({ servers, exportName })), { servers, exportName })
  }
  for (const foreign of ['', 'nbd://', 'x', 'nbd://a b/c', 'nbd://h:0/c', 'nbd://h/%zz']) {
    t.is(parseBackend(foreign), undefined, foreign)
  }
  t.deepEqual(parseServer('host'), { host: 'host', port: 10809 })
  t.is(parseServer('unix:relative'), undefined)
})

test('a connect request is laid out as linux/nbd-netlink.h has it', (t) => {
  const bytes = encodeConnect(0x1b, {
    ...{ index: 3, sizeBytes: 0x1_0000_0000, blockBytes: 512, flags: 5, sockets: [9] },
    ...{ timeoutSeconds: 0, deadSeconds: 30, backend: 'x' },
  })
  const expected = [
    ...['64000000', '1b00', '0500', '00000000', '00000000', '01010000'],
    ...['08000100', '03000000', '0c000200', '0000000001000000', '0c000300', '0002000000000000'],
    ...['0c000500', '0500000000000000', '0c000800', '1e00000000000000', '06000a00', '78000000'],
    ...['10000780', '0c000180', '08000100', '09000000'],
  ]
  t.is(bytes.toString('hex'), expected.join(''))
})

test('netlink answers that are cut short or lie about their length are read up to there', (t) => {
  const whole = nl.encodeRequest({
    ...{ family: 30, command: 5 },
    attributes: [nl.u32(1, 7), nl.nested(9, [nl.nested(1, [nl.u32(1, 2)])])],
  })
  for (let length = 0; length < whole.length; length++) {
    t.deepEqual(nl.decodeReply(whole.subarray(0, length)).messages, [], `${length} bytes`)
  }
  for (let at = 0; at < whole.length; at++) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      const bent = Buffer.from(whole)
      bent[at] = value
      t.notThrows(() => {
        for (const { attributes } of nl.decodeReply(bent).messages) {
          for (const one of attributes) nl.decodeAttributes(one.value)
        }
      })
    }
  }
})
