/**
 * Whole NBD sessions, fed at many chunk sizes from single bytes to all at once: the server must
 * answer the same bytes each time. A client may not send ahead during the handshake, but a network
 * may cut and join at will, and a server that minds would work only on a good day.
 */
import test from 'ava'
import { Command, CommandFlag, Option } from '../../src/wire/nbd/constants.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import { ask, HELLO, infoData, metaData, option, rig, settle, u32 } from './support/nbd-rig.js'
import { optionTranscript, replyTranscript } from './support/nbd-transcript.js'

const KIB = 1024
const { READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS } = Command

function source(): MemorySource {
  const alice = new MemoryVolume('Alice', { sizeBytes: 1024 * KIB, objectBytes: 128 * KIB })
  return new MemorySource(alice, new MemoryVolume('Alice@1', { sizeBytes: 512, readOnly: true }))
}

interface Result {
  readonly sent: Buffer
  readonly ended: boolean
  readonly closes: number
}

async function play(session: Buffer, chunkBytes: number): Promise<Result> {
  const exports = source()
  const { connection } = rig(exports)
  for (let at = 0; at < session.length; at += chunkBytes) {
    connection.events.data(Buffer.from(session.subarray(at, at + chunkBytes)))
    // Now and then the loop turns between two chunks, now and then not.
    if (at % (3 * chunkBytes) === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  await settle()
  return { sent: connection.sent, ended: connection.ended, closes: exports.volumes[0]!.closes }
}

const HAGGLING = [
  HELLO,
  option(4711, Buffer.from('who knows')),
  option(Option.LIST),
  option(Option.STRUCTURED_REPLY),
  option(Option.SET_META_CONTEXT, metaData('Alice', 'base:allocation', 'x:y')),
  option(Option.INFO, infoData('Alice@1', 1, 2, 3)),
  option(Option.GO, infoData('Bob')),
  option(Option.GO, infoData('Alice', 3)),
]

const SERVING = [
  ask({ type: WRITE, cookie: 1, offset: 100, data: Buffer.alloc(300, 1) }),
  ask({ type: READ, cookie: 2, offset: 99, length: 302 }),
  ask({ type: WRITE, cookie: 3, offset: 1024 * KIB - 2, data: Buffer.alloc(3, 1) }),
  ask({ type: WRITE, cookie: 4, offset: 300 * KIB, data: Buffer.alloc(2 * KIB, 4) }),
  ask({ type: 77, cookie: 5 }),
  ask({ type: READ, cookie: 6, offset: 0, length: 512 * KIB }),
  ask({ type: BLOCK_STATUS, cookie: 7, length: 1024 * KIB }),
  ask({ type: WRITE_ZEROES, cookie: 8, length: 128 * KIB }),
  ask({ type: TRIM, cookie: 9, offset: 256 * KIB, length: 128 * KIB }),
  ask({ type: BLOCK_STATUS, cookie: 10, length: 1024 * KIB, flags: CommandFlag.REQ_ONE }),
  ask({ type: FLUSH, cookie: 11 }),
  ask({ type: DISC, cookie: 12 }),
]

const CHUNKS = [1, 2, 3, 5, 7, 16, 27, 28, 29, 64, 255, 1000]

test('a session with structured replies is the same at every chunk size', async (t) => {
  const session = Buffer.concat([...HAGGLING, ...SERVING])
  const whole = await play(session, session.length)
  const haggled = await play(Buffer.concat(HAGGLING), 1e6)
  t.deepEqual(optionTranscript(haggled.sent).slice(1), [
    '4711 ERR_UNSUP "option is not supported"',
    '3 SERVER Alice: a disk',
    '3 SERVER Alice@1: a snapshot',
    '3 ACK',
    '8 ACK',
    '10 META_CONTEXT id=1 base:allocation',
    '10 ACK',
    '6 INFO export size=512 flags=0x58f',
    '6 INFO text1 Alice@1',
    '6 INFO text2 a snapshot',
    '6 INFO blocks 1 4096 33554432',
    '6 ACK',
    '7 ERR_UNKNOWN "No VDI found"',
    '7 INFO export size=1048576 flags=0xded',
    '7 INFO blocks 1 4096 33554432',
    '7 ACK',
  ])
  t.deepEqual(replyTranscript(whole.sent.subarray(haggled.sent.length)), [
    '1 simple error=0',
    '2 data @99 1x00 300x01 1x00 done',
    '3 error=28 "range is beyond the end of the export" done',
    '4 simple error=0',
    '5 error=22 "unknown command" done',
    '6 data @0 100x00 300x01 130672x00',
    '6 hole @131072 +131072',
    '6 data @262144 45056x00 2048x04 83968x00',
    '6 hole @393216 +131072 done',
    '7 status id=1 131072:0 131072:3 131072:0 655360:3 done',
    '8 simple error=0',
    '9 simple error=0',
    '10 status id=1 1048576:3 done',
    '11 simple error=0',
  ])
  t.true(whole.ended)
  t.is(whole.closes, 1)
  for (const chunkBytes of CHUNKS) {
    const { sent, ended, closes } = await play(session, chunkBytes)
    t.true(sent.equals(whole.sent), `chunks of ${chunkBytes}`)
    t.true(ended)
    t.is(closes, 1)
  }
})

test('a session of the oldest kind is the same at every chunk size', async (t) => {
  const session = Buffer.concat([u32(0), option(Option.EXPORT_NAME), ...SERVING])
  const whole = await play(session, session.length)
  t.is(whole.sent.length, 18 + 134 + 10 * 16 + 302 + 512 * KIB + 16)
  const reads = { 2: 302, 6: 512 * KIB }
  t.deepEqual(replyTranscript(whole.sent.subarray(18 + 134), reads), [
    '1 simple error=0',
    '2 simple 1x00 300x01 1x00',
    '3 simple error=28',
    '4 simple error=0',
    '5 simple error=22',
    '6 simple 100x00 300x01 306800x00 2048x04 215040x00',
    '7 simple error=22',
    '8 simple error=0',
    '9 simple error=0',
    '10 simple error=22',
    '11 simple error=0',
  ])
  for (const chunkBytes of CHUNKS) {
    const { sent, ended, closes } = await play(session, chunkBytes)
    t.true(sent.equals(whole.sent), `chunks of ${chunkBytes}`)
    t.true(ended)
    t.is(closes, 1)
  }
})
