// CRC32C against the vectors of RFC 7143 (appendix "CRC Examples" of RFC 3720), and in pieces.
import test from 'ava'
import { crc32c } from '../../src/base/crc32c.js'

test('the examples of the RFC', (t) => {
  t.is(crc32c(Buffer.alloc(32)), 0x8a9136aa)
  t.is(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43)
  t.is(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i))), 0x46dd794e)
  t.is(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => 31 - i))), 0x113fdb5c)
})

test('in pieces of any length it is the same as at once', (t) => {
  const bytes = Buffer.from(Array.from({ length: 100 }, (_, i) => (i * 37) & 0xff))
  const whole = crc32c(bytes)
  for (let cut = 0; cut <= bytes.length; cut++) {
    t.is(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut))), whole)
  }
})
