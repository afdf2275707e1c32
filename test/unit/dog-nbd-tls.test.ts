/** `dog nbd attach --tls-...`: what is agreed on, where the bytes go, and what is kept of it. */
import test from 'ava'
import { backendText, parseBackend } from '../../src/dog/nbd-backend.js'
import type { TlsKeys } from '../../src/world/tls-client.js'
import { A, B, MEBIBYTE, type Rig, type Run, rig, server, status } from './support/dog-nbd-rig.js'

const PKI = ['--tls-certificates', '/etc/pki'] as const
const secureServer = (sizeMib = 64) => ({ ...server(sizeMib), hasTls: true })

async function attached(...words: string[]): Promise<Rig & { run: Run }> {
  const one = rig()
  one.kernel.servers.set(A, secureServer())
  const run = one.dog('attach', '-s', `${A},${B}`, ...PKI, 'Alice', ...words)
  await one.clock.until('attached', () => run.out() !== '')
  return { ...one, run }
}

test('the kernel gets one end of a pair, whose other end leads through TLS to the server', async (t) => {
  const { kernel, run } = await attached()
  t.deepEqual(kernel.upgrades, [{ keys: { certificates: '/etc/pki' }, host: '10.0.0.1' }])
  t.deepEqual(kernel.linksOf(0), [A])
  t.is(kernel.attached.get(0)!.sizeBytes, 64 * MEBIBYTE)
  t.is(kernel.attached.get(0)!.backend, `nbds://${A},${B}/Alice?tls-certificates=%2Fetc%2Fpki`)
  t.deepEqual(kernel.patience, [30_000, 0], 'TCP is watched here, the pair is not')
  let isOver = false
  void run.done.then(() => {
    isOver = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  t.false(isOver, 'somebody has to carry the bytes')
  kernel.carried[0]!.ours.vanish()
  t.is(await run.done, 0)
})

test('a keeper dials again through TLS, and ends with the device', async (t) => {
  const { kernel, clock, dog, run } = await attached('--persist', '-C', '2')
  kernel.kill(A)
  kernel.servers.set(B, secureServer(80))
  await clock.until('two links', () => kernel.linksOf(0).length === 2)
  t.deepEqual(kernel.linksOf(0), [B, B])
  t.deepEqual(
    kernel.upgrades.map(({ host }) => host),
    ['10.0.0.1', '10.0.0.1', '10.0.0.2', '10.0.0.2'],
  )
  t.is(await dog('detach', 'Alice').done, 0)
  for (const { ours } of kernel.carried) ours.vanish()
  t.is(await run.done, 0)
})

test('refresh finds the keys by what the kernel keeps of the device', async (t) => {
  const { kernel, dog } = await attached('--tls-hostname', 'storage.example')
  kernel.servers.set(A, secureServer(96))
  t.deepEqual(await status(dog('refresh', 'Alice')), [0, `/dev/nbd0 ${96 * MEBIBYTE}\n`, ''])
  t.deepEqual(kernel.upgrades[1], kernel.upgrades[0])
  t.is(kernel.upgrades[1]!.keys.hostname, 'storage.example')
  t.regex((await status(dog('devices')))[1], /Alice at 10\.0\.0\.1:10809, .* \(TLS\)$/m)
})

test('the handshake with TLS takes its bytes as they come', async (t) => {
  for (const pieceBytes of [1, 7, 19, 20, 100]) {
    const { kernel, dog, clock } = rig()
    kernel.servers.set(A, { ...secureServer(), pieceBytes })
    const run = dog('attach', '-s', A, ...PKI, 'Alice')
    await clock.until(`attached, ${pieceBytes} at a time`, () => run.out() !== '')
    t.is(kernel.upgrades.length, 1)
  }
})

const REFUSALS: readonly (readonly [string, (rig: Rig) => void, RegExp])[] = [
  [
    'a server without TLS',
    ({ kernel }) => kernel.servers.set(A, server()),
    /has no TLS \(no keys\)/,
  ],
  [
    'a certificate of somebody else',
    ({ kernel }) => {
      kernel.tlsTrouble = 'not who he should be'
    },
    /TLS: not who he should be\n.*--tls-hostname/,
  ],
  [
    'words in the clear behind the consent to TLS',
    ({ kernel }) => kernel.servers.set(A, { ...secureServer(), injected: Buffer.alloc(20) }),
    /in the clear where TLS should begin/,
  ],
]

for (const [title, spoil, words] of REFUSALS) {
  test(`nothing is attached, and nothing asked in the clear: ${title}`, async (t) => {
    const one = rig()
    one.kernel.servers.set(A, secureServer())
    spoil(one)
    const [code, out, errors] = await status(one.dog('attach', '-s', A, ...PKI, 'Alice'))
    t.deepEqual([code, out], [1, ''])
    t.regex(errors, words)
    t.is(one.kernel.attached.size, 0)
  })
}

test('keys that do not go together are refused before anybody is dialled', async (t) => {
  const { kernel, dog } = rig()
  kernel.servers.set(A, secureServer())
  const wrong = [
    [...PKI, '--tls-psk', '/keys'],
    [...PKI, '--tls-user', 'alice'],
    ['--tls-psk', '/keys', '--tls-hostname', 'host'],
    ['--tls-user', 'alice'],
    ['--foreground'],
  ]
  for (const words of wrong) {
    const [code, , errors] = await status(dog('attach', '-s', A, ...words, 'Alice'))
    t.is(code, 64, words.join(' '))
    t.regex(errors, /go(es)? with|Either/)
  }
  t.deepEqual(kernel.dialled, [])
})

test('where keys are survives as text, whatever the names; keys themselves are not in it', (t) => {
  const servers = [{ host: 'fe80::1', port: 1 }, { path: '/run/a@b?c' }]
  const keys: TlsKeys[] = [
    { certificates: '/etc/pki/a b' },
    { certificates: '/etc/pki', hostname: 'größe' },
    { preSharedKeys: '/etc/keys?&=%', user: 'a/b@c:d,e' },
  ]
  for (const tls of keys) {
    const backend = { servers, exportName: 'Alice@tag', tls }
    t.deepEqual(parseBackend(backendText(backend)), backend)
  }
  for (const foreign of ['nbds://h/c?tls-rubbish=1', 'nbds://h/c', 'nbd://u@h/c', 'nbds://h/c?x']) {
    t.is(parseBackend(foreign), undefined, foreign)
  }
})
