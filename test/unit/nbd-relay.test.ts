// Bytes carried between the kernel and a server: order, back-pressure, and what becomes of them when one side ends.
import test from 'ava'
import { relay } from '../../src/dog/nbd-relay.js'
import { TestConnection } from './support/nbd-rig.js'

function carried() {
  const [kernel, server] = [new TestConnection(), new TestConnection()]
  return { kernel, server, over: relay(kernel, server) }
}

const bytes = (text: string): Buffer => Buffer.from(text)

test('bytes go both ways, in order', (t) => {
  const { kernel, server } = carried()
  for (const one of ['a', 'b', 'c']) kernel.events.data(bytes(one))
  for (const one of ['1', '2']) server.events.data(bytes(one))
  t.is(server.sent.toString(), 'abc')
  t.is(kernel.sent.toString(), '12')
})

test('who is slow holds up the other side until it has taken what waits', (t) => {
  const { kernel, server } = carried()
  server.slow = true
  kernel.events.data(bytes('a'))
  t.true(kernel.paused)
  server.events.drain()
  t.false(kernel.paused)
  kernel.slow = true
  server.events.data(bytes('1'))
  t.true(server.paused)
  kernel.events.drain()
  t.false(server.paused)
})

test("the kernel's last word reaches the server before the connection is closed", async (t) => {
  const { kernel, server, over } = carried()
  kernel.events.data(bytes('disconnect'))
  kernel.vanish()
  await over
  t.is(server.sent.toString(), 'disconnect')
  t.true(server.ended)
  t.false(server.destroyed)
})

test('requests that the kernel has given up while they waited here do not come late', async (t) => {
  const { kernel, server, over } = carried()
  server.slow = true
  kernel.events.data(bytes('write'))
  kernel.vanish()
  await over
  t.true(server.destroyed)
  t.false(server.ended)
})

test('what the server has answered before it went is answered, then the kernel sees the end', async (t) => {
  const { kernel, server, over } = carried()
  kernel.slow = true
  server.events.data(bytes('reply'))
  server.vanish()
  await over
  t.is(kernel.sent.toString(), 'reply')
  t.true(kernel.ended)
  t.false(kernel.destroyed)
})
