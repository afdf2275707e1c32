// What a node is started as: the command line, and what its store remembers of it.
import test from 'ava'
import { parseSheepOptions, type SheepOptions } from '../../src/bin/sheep-options.js'
import type { SdNode } from '../../src/model/node.js'
import { configFor, type Role, refusalOfRole, weightOf } from '../../src/sheep/role.js'
import { CONFIG_BYTES, decodeConfig, encodeConfig } from '../../src/store/config.js'
import { ClusterFlag } from '../../src/wire/sheepdog/opcodes.js'

const GATEWAY: Role = { kind: 'gateway' }
const AUTOMATIC: Role = { kind: 'automatic' }
const fixed = (vnodes: number): Role => ({ kind: 'fixed', vnodes })
const { AUTO_VNODES } = ClusterFlag

function options(...argv: string[]): SheepOptions {
  const parsed = parseSheepOptions([...argv, '/store'], '2.0.0')
  if (parsed.kind !== 'run') throw new Error(`exit ${parsed.status}`)
  return parsed.options
}

test('the role is what -g and -V say', (t) => {
  t.deepEqual(options().role, AUTOMATIC)
  t.deepEqual(options('-g').role, GATEWAY)
  t.deepEqual(options('-V', '40').role, fixed(40))
  t.deepEqual(options('--vnodes=65535').role, fixed(65535))
})

test('impossible roles are refused', (t) => {
  for (const argv of [
    ['-V', '0'],
    ['-V', '65536'],
    ['-V', 'x'],
    ['-g', '-V', '3'],
  ]) {
    t.deepEqual(
      parseSheepOptions([...argv, '/store'], '2.0.0'),
      { kind: 'exit', status: 1 },
      `${argv}`,
    )
  }
})

test('options that only tune what is not there are carried over with a warning', (t) => {
  const { ignored } = options('--wq-threads', 'net=2,io=4', '-x', '32')
  t.is(ignored.length, 2)
  t.regex(ignored[0] ?? '', /^--wq-threads/)
  t.deepEqual(options().ignored, [])
})

test('direct I/O is a part of what is said of the cache', (t) => {
  const { ignored, cache } = options('-w', 'size=1G,directio')
  t.deepEqual(ignored, [])
  t.like(cache, { sizeBytes: 2 ** 30, directio: true })
  t.like(options('-w', 'size=1G'), { ignored: [], cache: { directio: false } })
})

test('a new node measures its space once, a gateway never', (t) => {
  const fresh = configFor(AUTOMATIC, undefined, 5000)
  t.like(fresh, { spaceBytes: 5000, createdAt: 0n, flags: AUTO_VNODES })
  t.is(configFor(AUTOMATIC, fresh, 9000).spaceBytes, 5000)
  t.is(configFor(GATEWAY, undefined, 5000).spaceBytes, 0)
  t.is(configFor(AUTOMATIC, configFor(GATEWAY, undefined, 1), 7000).spaceBytes, 7000)
  t.deepEqual(weightOf(GATEWAY, fresh), { vnodes: 0, spaceBytes: 0 })
  t.deepEqual(weightOf(fixed(9), fresh), { vnodes: 9, spaceBytes: 5000 })
  t.deepEqual(weightOf(AUTOMATIC, fresh), { vnodes: 128, spaceBytes: 5000 })
})

test('before the format the strategy is what the node is started with, after it what was formatted', (t) => {
  const before = configFor(fixed(9), undefined, 1)
  t.is(before.flags & AUTO_VNODES, 0)
  t.is(configFor(AUTOMATIC, before, 1).flags & AUTO_VNODES, AUTO_VNODES)
  const formatted = { ...before, createdAt: 77n }
  t.is(configFor(AUTOMATIC, formatted, 1).flags & AUTO_VNODES, 0)
  const bytes = encodeConfig(formatted)
  t.is(bytes.length, CONFIG_BYTES)
  t.deepEqual(decodeConfig(bytes, 'config'), formatted)
})

test('a formatted store is started only as what its cluster knows (defect C28)', (t) => {
  const self: SdNode = { host: '10.0.0.1', port: 7000, vnodes: 40, zone: 1, spaceBytes: 1 }
  const config = { ...configFor(fixed(40), undefined, 1), createdAt: 77n }
  const judge = (role: Role, flags: number, lastNodes: readonly SdNode[] = [self]) =>
    refusalOfRole({ role, config: { ...config, flags }, self, lastNodes })
  t.is(judge(fixed(40), 0), undefined)
  t.regex(judge(fixed(41), 0) ?? '', /40 vnodes, -V says 41.*-V 40.*dog node vnodes set/)
  t.is(judge(fixed(41), 0, []), undefined)
  t.is(judge(fixed(41), 0, [{ ...self, vnodes: 0 }]), undefined)
  t.regex(judge(AUTOMATIC, 0) ?? '', /start it with -V NUMBER/)
  t.regex(judge(fixed(40), AUTO_VNODES) ?? '', /start it without -V/)
  t.is(judge(AUTOMATIC, AUTO_VNODES), undefined)
  t.is(judge(GATEWAY, 0), undefined)
  const fresh = { role: fixed(1), config: { ...config, createdAt: 0n }, self, lastNodes: [] }
  t.is(refusalOfRole(fresh), undefined)
})
