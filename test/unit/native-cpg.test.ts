// The corosync binding without a corosync: what it does with wrong arguments and with ports nobody opens.
import { createRequire } from 'node:module'
import test from 'ava'
import { hasCorosyncBinding } from '../../src/world/node/corosync.js'

type Callback = (what: string, value: unknown) => void
interface Binding {
  join(group?: unknown, callback?: unknown): object
  watchQuorum(callback?: unknown): object
  send(port?: unknown, parts?: unknown): number
  close(port?: unknown): void
}

const CS_ERR_BAD_HANDLE = 9

const binding = (): Binding => createRequire(import.meta.url)('../../native/cpg.node') as Binding
const nothing: Callback = () => undefined

const nativeTest = hasCorosyncBinding() ? test : test.skip

nativeTest('wrong arguments throw and start nothing', (t) => {
  const cpg = binding()
  t.throws(() => cpg.join())
  t.throws(() => cpg.join('sheepdog'))
  t.throws(() => cpg.join('', nothing))
  t.throws(() => cpg.join(7, nothing))
  t.throws(() => cpg.join('sheepdog', 'not a function'))
  t.throws(() => cpg.watchQuorum('not a function'))
  for (const port of [undefined, {}, 7, 'port']) {
    t.throws(() => cpg.send(port, [Buffer.from('x')]))
    t.throws(() => cpg.close(port))
  }
})

nativeTest('a port that is closed at once is never heard of and takes nothing', async (t) => {
  const cpg = binding()
  let calls = 0
  const port = cpg.join('sheepdog-test', () => {
    calls++
  })
  t.is(cpg.send(port, [Buffer.from('too early')]), CS_ERR_BAD_HANDLE)
  t.throws(() => cpg.send(port, []))
  t.throws(() =>
    cpg.send(
      port,
      Array.from({ length: 5 }, () => Buffer.from('x')),
    ),
  )
  t.throws(() => cpg.send(port, ['not bytes']))
  cpg.close(port)
  cpg.close(port)
  t.is(cpg.send(port, [Buffer.from('too late')]), CS_ERR_BAD_HANDLE)
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.is(calls, 0)
})
