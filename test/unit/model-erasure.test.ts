// Erasure coding against the vectors of the specification, and every d:p against itself. Each case runs with both
// implementations of the byte work: the native binding must not differ from the portable one in a single byte.
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { portableStrips, type StripMath } from '../../src/base/strips.js'
import { ErasureCode, generatorMatrix } from '../../src/model/erasure.js'
import { parseRedundancy, redundancyText, type Strips, stripsOf } from '../../src/model/policy.js'
import { nativeStrips } from '../../src/world/node/strips.js'
import { Dice } from './support/fake-cluster.js'
import { seeds } from './support/seeds.js'

const native = nativeStrips(silentLog)
const MATHS: readonly StripMath[] =
  native === undefined ? [portableStrips] : [portableStrips, native]

const WIDTHS = [2, 4, 8, 16] as const
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

function parityRow(data: number, row: number, parity = row + 1): string {
  const matrix = generatorMatrix({ data, parity })
  return hex(matrix.subarray((data + row) * data, (data + row + 1) * data))
}

const pick = <T>(dice: Dice, from: readonly T[]): T => from[dice.below(from.length)]!

/** 4 MiB of the specification's vector. */
function vector(): Buffer {
  const bytes = Buffer.alloc(4 * 1024 * 1024)
  for (let i = 0; i < bytes.length; i++) bytes[i] = (7 * i + 13 * (i >> 9) + (i >> 16)) & 0xff
  return bytes
}

test('the binding is built and loads', (t) => {
  t.truthy(native, 'run `npm run build`')
  t.regex(native!.name, /^(avx2|ssse3|neon|plain)$/)
})

test('parity rows are those of sheepdog 1.0', (t) => {
  t.deepEqual(
    [0, 1, 2].map((row) => parityRow(2, row)),
    ['0302', '0504', '0908'],
  )
  t.deepEqual(
    [0, 1, 2].map((row) => parityRow(4, row)),
    ['7740380e', 'c7a70d6c', '53026f3f'],
  )
  t.deepEqual(
    [0, 1, 2].map((row) => parityRow(8, row)),
    ['8918d07d92a4f5fe', '36f8d0ce2519fb16', '5fcda3405048f69e'],
  )
  t.is(parityRow(16, 0), 'c53b1f2d4faa83c2616977a6e25f373a')
  t.is(parityRow(16, 1), '7d17d71360a9a89dcda37db4ab286d1a')
  t.is(parityRow(16, 2), '40243c124b6206d32eaef1c7a84eb453')
  t.is(parityRow(16, 14), 'a65eb0ce630b81e117089cd928dea586')
})

test('a parity row does not depend on how many there are', (t) => {
  for (const data of WIDTHS) {
    for (let parity = 1; parity <= 15; parity++) {
      t.is(parityRow(data, 0, parity), parityRow(data, 0, 15), `${data}:${parity}`)
    }
  }
})

for (const math of MATHS) {
  test(`the 4 MiB vector becomes the specified fragments (${math.name})`, (t) => {
    const fragments = new ErasureCode({ data: 4, parity: 2 }, math).encode(vector())
    t.is(fragments.length, 6)
    for (const fragment of fragments) t.is(fragment.length, 1024 * 1024)
    const start = (i: number): string => hex(fragments[i]!.subarray(0, 16))
    t.is(start(0), '00070e151c232a31383f464d545b6269')
    t.is(start(1), '80878e959ca3aab1b8bfc6cdd4dbe2e9')
    t.is(start(4), 'd4d3dac1c8f7fee5eceb9299808fb6bd')
    t.is(start(5), '7d7a7368615e574c45423b3029261f14')
  })

  test(`any d fragments of any d:p give the data back, and every other fragment (${math.name})`, (t) => {
    for (const seed of seeds(2)) {
      const dice = new Dice(seed)
      for (const data of WIDTHS) {
        for (let parity = 1; parity <= 15; parity++) roundTrip({ data, parity }, dice, seed)
      }
    }
    t.pass()

    function roundTrip(strips: Strips, dice: Dice, seed: number): void {
      const code = new ErasureCode(strips, math)
      const bytes = Buffer.alloc(512 * (1 + dice.below(9)))
      for (let i = 0; i < bytes.length; i++) bytes[i] = dice.below(256)
      const whole = code.encode(bytes)
      for (let trial = 0; trial < 4; trial++) {
        const kept: (Uint8Array | undefined)[] = [...whole]
        while (kept.filter((one) => one !== undefined).length > strips.data) {
          kept[pick(dice, [...kept.keys()])] = undefined
        }
        const back = Buffer.alloc(bytes.length)
        code.decode(kept, back)
        t.true(back.equals(bytes), `SEED=${seed} ${strips.data}:${strips.parity}`)
        const index = dice.below(code.width)
        t.is(hex(code.rebuild(index, kept)), hex(whole[index]!))
      }
    }
  })

  test(`too few fragments and buffers that do not fit are refused (${math.name})`, (t) => {
    const code = new ErasureCode({ data: 4, parity: 2 }, math)
    const whole = code.encode(Buffer.alloc(1024, 7))
    const some = whole.map((one, i) => (i % 2 === 0 ? one : undefined))
    t.false(code.suffices(some))
    t.throws(() => code.decode(some, Buffer.alloc(1024)), { instanceOf: RangeError })
    t.throws(() => code.encode(Buffer.alloc(511)), { instanceOf: RangeError })
    t.throws(() => code.decode(whole, Buffer.alloc(1023)), { instanceOf: RangeError })
    t.throws(() => math.split(Buffer.alloc(512), [Buffer.alloc(170), Buffer.alloc(171)]), {
      instanceOf: RangeError,
    })
    const [a, b] = [Buffer.alloc(512), Buffer.alloc(256)]
    t.throws(() => math.mix(Buffer.alloc(1), [a], [b]), { instanceOf: RangeError })
    t.throws(() => math.mix(Buffer.alloc(3), [a], [b]), { instanceOf: RangeError })
    t.throws(() => math.mix(Buffer.alloc(32), Array(32).fill(a), [b]), { instanceOf: RangeError })
  })
}

test('both implementations give the same bytes for lengths that fill no vector', (t) => {
  const dice = new Dice(3)
  for (const length of [1, 15, 16, 17, 31, 33, 63, 100, 2047, 2049, 5000]) {
    const random = (): Buffer => Buffer.from(Array.from({ length }, () => dice.below(256)))
    const inputs = Array.from({ length: 5 }, random)
    const coefficients = Buffer.from(Array.from({ length: 15 }, () => dice.below(256)))
    const results = MATHS.map((math) => {
      const outputs = [random(), random(), random()]
      math.mix(coefficients, inputs, outputs)
      return hex(Buffer.concat(outputs))
    })
    t.is(new Set(results).size, 1, `${length} bytes`)
  }
})

test('every policy of the specification has a byte and a text', (t) => {
  const samples = [
    ['2:1', 0x11],
    ['4:2', 0x22],
    ['8:3', 0x43],
    ['16:15', 0x8f],
  ] as const
  for (const [text, policy] of samples) {
    const redundancy = parseRedundancy(text)!
    t.is(redundancy.policy, policy)
    t.is(redundancyText(redundancy), text)
    t.is(redundancy.copies, stripsOf(policy)!.data + stripsOf(policy)!.parity)
  }
  for (const text of ['3:1', '4:0', '4:16', '32:1', '0:2', '4:2:1']) {
    t.is(parseRedundancy(text), undefined, text)
  }
  for (const policy of [0x20, 0x32, 0x01, 0xf1]) t.throws(() => stripsOf(policy))
})
