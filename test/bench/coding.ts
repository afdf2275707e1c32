/**
 * `npm run bench -- --coding`: erasure coding of 4 MiB objects in memory, the native binding beside the portable twin, in MB/s
 * of data. `decode` and `rebuild` are the worst case: as many data fragments lost as there is parity.
 */
import { silentLog } from '../../src/base/log.js'
import { portableStrips, type StripMath } from '../../src/base/strips.js'
import { ErasureCode } from '../../src/model/erasure.js'
import type { Strips } from '../../src/model/policy.js'
import { nativeStrips } from '../../src/world/node/strips.js'
import { figure, table } from './table.js'

const OBJECT_BYTES = 4 * 1024 * 1024
const SHORTEST_MS = 400
const CASES: readonly Strips[] = [
  { data: 2, parity: 1 },
  { data: 4, parity: 2 },
  { data: 8, parity: 3 },
  { data: 16, parity: 15 },
]

/** MB/s of `work`, which goes through one object. */
function speed(work: () => void): number {
  work()
  const begin = process.hrtime.bigint()
  let rounds = 0
  let ms = 0
  do {
    work()
    rounds++
    ms = Number(process.hrtime.bigint() - begin) / 1e6
  } while (ms < SHORTEST_MS)
  return (rounds * OBJECT_BYTES) / 1e3 / ms
}

function rowsOf(strips: Strips, math: StripMath): string[] {
  const code = new ErasureCode(strips, math)
  const data = Buffer.alloc(OBJECT_BYTES)
  for (let i = 0; i < data.length; i++) data[i] = (i * 2654435761) >>> 13
  const whole = code.encode(data)
  const lost = Math.min(strips.data, strips.parity)
  const left = whole.map((fragment, i) => (i < lost ? undefined : fragment))
  const back = Buffer.alloc(OBJECT_BYTES)
  const figures = [
    speed(() => void code.encode(data)),
    speed(() => code.decode(whole, back)),
    speed(() => code.decode(left, back)),
    speed(() => void code.rebuild(0, left)),
  ]
  return [`${strips.data}:${strips.parity}`, math.name, ...figures.map(figure)]
}

export function codingReport(): string {
  const native = nativeStrips(silentLog)
  const maths = native === undefined ? [portableStrips] : [native, portableStrips]
  const rows = CASES.flatMap((strips) => maths.map((math) => rowsOf(strips, math)))
  const head = ['code', 'by', 'encode', 'read', 'decode', 'rebuild']
  return `Erasure coding, MB/s of 4 MiB objects\n\n${table(head, rows)}`
}
