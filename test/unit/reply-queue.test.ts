import test from 'ava'
import { BufferPool } from '../../src/base/buffer-pool.js'
import { noBytes } from '../../src/base/bytes.js'
import { ReplyQueue, type Room } from '../../src/base/reply-queue.js'

const KIB = 1024

function reserved(queue: ReplyQueue, length: number): Room {
  const room = { reply: noBytes(), replyAt: 0 }
  queue.reserve(length, room)
  return room
}

function queued(queue: ReplyQueue, text: string, length = text.length): Room {
  const room = reserved(queue, length)
  room.reply.write(text, room.replyAt, 'latin1')
  queue.add(room.reply, room.replyAt, text.length)
  return room
}

test('neighbours leave as one piece, in the order they were queued', (t) => {
  const queue = new ReplyQueue()
  const first = reserved(queue, 3)
  queued(queue, 'two')
  first.reply.write('one', first.replyAt, 'latin1')
  queue.add(first.reply, first.replyAt, 3)
  queued(queue, 'three')
  t.is(queue.bytes, 11)
  const { pieces } = queue.take()
  t.deepEqual(pieces.map(String), ['two', 'one', 'three'])
  t.is(queue.bytes, 0)
  queued(queue, 'four')
  queued(queue, 'five')
  t.deepEqual(queue.take().pieces.map(String), ['fourfive'])
})

test('large memory is used again when it has been sent, and not before', (t) => {
  const queue = new ReplyQueue(new BufferPool({ scribble: true }))
  const first = queued(queue, 'large', 1000 * KIB)
  const { pieces, sent } = queue.take()
  const second = reserved(queue, 1000 * KIB)
  t.not(second.reply.buffer, first.reply.buffer)
  t.deepEqual(pieces.map(String), ['large'])
  sent()
  t.is(reserved(queue, 1000 * KIB).reply.buffer, first.reply.buffer)
})

test('a slab is used again when all that was reserved in it has been sent or given up', (t) => {
  const queue = new ReplyQueue(new BufferPool({ scribble: true }))
  const waiting = reserved(queue, 4 * KIB)
  const failed = reserved(queue, 4 * KIB)
  const others = Array.from({ length: 62 }, () => queued(queue, 'other', 4 * KIB))
  const { sent } = queue.take()
  const next = reserved(queue, 4 * KIB)
  t.not(next.reply.buffer, waiting.reply.buffer)
  sent()
  queue.forgo(failed)
  t.is(String(others[0]!.reply.subarray(8 * KIB, 8 * KIB + 5)), 'other')
  queue.add(waiting.reply, waiting.replyAt, 4 * KIB)
  queue.take().sent()
  t.is(reserved(queue, 200 * KIB).reply.buffer, waiting.reply.buffer)
})

test('a connection with one request at a time answers from the same memory each time', (t) => {
  const queue = new ReplyQueue(new BufferPool())
  const places = new Set<number>()
  for (let i = 0; i < 100; i++) {
    places.add(queued(queue, 'again', 4 * KIB).replyAt)
    queue.take().sent()
  }
  t.deepEqual([...places], [0])
})

test('memory that is queued in parts, others between them, is used again when all of them have been sent', (t) => {
  const queue = new ReplyQueue(new BufferPool({ scribble: true }))
  const large = reserved(queue, 1000 * KIB)
  large.reply.write('onetwo', 0, 'latin1')
  queue.divide(large, 2)
  queue.add(large.reply, 0, 3)
  queued(queue, 'and')
  const first = queue.take()
  queue.add(large.reply, 3, 3)
  const second = queue.take()
  first.sent()
  t.not(reserved(queue, 1000 * KIB).reply.buffer, large.reply.buffer)
  t.deepEqual([...first.pieces, ...second.pieces].map(String), ['one', 'and', 'two'])
  second.sent()
  t.is(reserved(queue, 1000 * KIB).reply.buffer, large.reply.buffer)
})
