import test from 'ava'
import { BufferPool } from '../../src/base/buffer-pool.js'

const KIB = 1024

test('memory that was given back is used again for what fits', (t) => {
  const pool = new BufferPool()
  const first = pool.take(100 * KIB)
  t.is(first.length, 100 * KIB)
  const { buffer } = first
  pool.give(first)
  t.is(pool.idleBytes, 128 * KIB)
  const small = pool.take(4 * KIB)
  t.not(small.buffer, buffer)
  const again = pool.take(65 * KIB)
  t.is(again.buffer, buffer)
  t.is(again.length, 65 * KIB)
  t.is(pool.idleBytes, 0)
})

test('every length gets memory of a size that holds it', (t) => {
  const pool = new BufferPool()
  for (const length of [1, 4095, 4096, 4097, 8192, 8193, 1 << 20, (1 << 20) + 1, 17 << 20]) {
    const taken = pool.take(length)
    t.is(taken.length, length)
    pool.give(taken)
    t.is(pool.take(length).length, length)
  }
})

test('what lies idle is bounded, and the largest are not kept at all', (t) => {
  const pool = new BufferPool()
  const taken = Array.from({ length: 100 }, () => pool.take(1 << 20))
  for (const buffer of [...taken, pool.take(32 << 20)]) pool.give(buffer)
  t.is(pool.idleBytes, 32 << 20)
})

test('for tests: what is given back is spoiled, and giving it back twice is noticed', (t) => {
  const pool = new BufferPool({ scribble: true })
  const taken = pool.take(10).fill(1)
  pool.give(taken)
  t.deepEqual([...taken], new Array(10).fill(0xd5))
  t.throws(() => pool.give(taken), { message: /twice/ })
})
