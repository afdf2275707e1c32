// NBD's STARTTLS at the door: what counts in the clear, and what does not. The encryption itself is in the real tests.
import test from 'ava'
import { Option } from '../../src/wire/nbd/constants.js'
import type { SecureConnection } from '../../src/world/world.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import { HELLO, infoData, option, rig, settle, TestConnection } from './support/nbd-rig.js'
import { optionTranscript } from './support/nbd-transcript.js'

class TestSecure extends TestConnection implements SecureConnection {
  readonly peerNames = ['client.example']
}

function door(isRequired: boolean, secure?: () => Promise<SecureConnection>) {
  const connection = new TestSecure()
  const server = { secure: secure ?? (() => Promise.resolve(connection)) }
  const made = rig(new MemorySource(new MemoryVolume('Alice', { sizeBytes: 1 << 20 })), {
    isRequired,
    server,
  })
  return Object.assign(made, { secure: connection })
}

const answers = ({ sent }: TestConnection): string[] => optionTranscript(sent).slice(1)

test('where TLS is required nothing is told before it', async (t) => {
  const { feed, connection, secure } = door(true)
  await feed(HELLO, option(Option.LIST), option(Option.GO, infoData('Alice')))
  const refusal = 'ERR_TLS_REQD "TLS is required: send STARTTLS first"'
  t.deepEqual(answers(connection), [`3 ${refusal}`, `7 ${refusal}`])
  await feed(option(Option.STARTTLS))
  t.is(answers(connection).at(-1), '5 ACK')
  secure.events.data(option(Option.LIST))
  await settle()
  t.regex(secure.sent.toString('latin1'), /Alice/)
  t.notRegex(connection.sent.toString('latin1'), /Alice/)
})

test('EXPORT_NAME, which has no way to be refused, ends a connection that should be encrypted', async (t) => {
  const { feed, connection } = door(true)
  await feed(HELLO, option(Option.EXPORT_NAME, Buffer.from('Alice')))
  t.true(connection.destroyed)
})

test('what was agreed in the clear does not count behind TLS', async (t) => {
  const { feed, secure } = door(false)
  await feed(HELLO, option(Option.STRUCTURED_REPLY))
  await feed(option(Option.STARTTLS))
  const meta = option(
    Option.LIST_META_CONTEXT,
    Buffer.concat([Buffer.from('\0\0\0\x05Alice\0\0\0\0')]),
  )
  secure.events.data(Buffer.concat([meta, option(Option.STARTTLS)]))
  await settle()
  const lines = optionTranscript(Buffer.concat([Buffer.alloc(18), secure.sent])).slice(1)
  t.deepEqual(lines, [
    '9 ERR_INVALID "structured replies come first"',
    '5 ERR_INVALID "the connection is encrypted already"',
  ])
})

test('bytes sent in the clear behind STARTTLS cost the connection', async (t) => {
  const { feed, connection, secure } = door(false)
  await feed(HELLO, option(Option.STARTTLS), option(Option.LIST))
  t.true(connection.destroyed)
  t.is(secure.sent.length, 0)
})

test('a client that fails the TLS handshake is gone', async (t) => {
  const made = door(false, () => Promise.reject(new Error('no shared cipher')))
  await made.feed(HELLO, option(Option.STARTTLS))
  t.is(made.gone, 1)
  t.is(made.clock.timers, 0)
})

test('without keys STARTTLS is unsupported, and with data invalid', async (t) => {
  const plain = rig(new MemorySource())
  await plain.feed(HELLO, option(Option.STARTTLS))
  t.deepEqual(answers(plain.connection), ['5 ERR_UNSUP "this server has no TLS"'])
  const { feed, connection } = door(false)
  await feed(HELLO, option(Option.STARTTLS, Buffer.alloc(1)))
  t.deepEqual(answers(connection), ['5 ERR_INVALID "STARTTLS takes no data"'])
})
