/** Export rules: who is let to what, and how little is told to who is not. */
import test from 'ava'
import { type ExportRule, type ExportRules, grantOf } from '../../src/doors/nbd/export-rules.js'
import { isLike } from '../../src/model/pattern.js'
import { parseSubnet } from '../../src/model/subnet.js'
import { Command, Option } from '../../src/wire/nbd/constants.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import { ask, HELLO, infoData, metaData, option, rig } from './support/nbd-rig.js'
import { optionTranscript, replyTranscript } from './support/nbd-transcript.js'

const MIB = 1024 * 1024

function rule(name: string, more: Partial<ExportRule> = {}): ExportRule {
  return {
    ...{ name, readOnly: false, hidden: false, description: undefined },
    ...{ addresses: undefined, certificates: undefined },
    ...more,
  }
}

const rulesOf = (...rules: ExportRule[]): ExportRules => ({ defaultExport: undefined, rules })
const near = (...texts: string[]) => ({ addresses: texts.map(parseSubnet) })

function volumes(...names: string[]): MemorySource {
  return new MemorySource(...names.map((name) => new MemoryVolume(name, { sizeBytes: MIB })))
}

/** What the server says to `options` of a client at `host`. */
async function said(
  source: MemorySource,
  rules: ExportRules,
  host: string | undefined,
  ...options: Buffer[]
) {
  const made = rig(source, undefined, { rules, ...(host !== undefined && { remoteHost: host }) })
  await made.feed(HELLO, ...options)
  return { ...made, lines: optionTranscript(made.connection.sent).slice(1) }
}

test('patterns: * any characters, ? one, everything else itself', (t) => {
  for (const [pattern, name, is] of [
    ['Alice', 'Alice', true],
    ['Alice', 'Alice@1', false],
    ['Alice@*', 'Alice@1', true],
    ['*', '', true],
    ['a*b*c', 'a1b2b3c', true],
    ['a*b*c', 'a1b2b3', false],
    ['?', '', false],
    ['a?c', 'abc', true],
    ['[a]', 'a', false],
    ['*a*a*a*a*a*a*a*a*b', 'a'.repeat(400), false],
  ] as const) {
    t.is(isLike(pattern, name), is, `${pattern} ${name}`)
  }
})

test('address ranges of both families, and local sockets', (t) => {
  for (const [range, host, is] of [
    ['10.0.0.0/8', '10.255.0.1', true],
    ['10.0.0.0/8', '11.0.0.1', false],
    ['10.1.2.3', '10.1.2.3', true],
    ['10.1.2.3', '10.1.2.4', false],
    ['192.168.4.0/22', '192.168.7.255', true],
    ['192.168.4.0/22', '192.168.8.0', false],
    ['0.0.0.0/0', '1.2.3.4', true],
    ['0.0.0.0/0', '::1', false],
    ['::/0', '1.2.3.4', false],
    ['fd00::/8', 'fdab::1', true],
    ['fd00::/8', 'fe80::1%eth0', false],
    ['fe80::/10', 'fe80::1%eth0', true],
    ['unix', undefined, true],
    ['unix', '127.0.0.1', false],
    ['127.0.0.1', undefined, false],
  ] as const) {
    t.is(parseSubnet(range).has(host), is, `${range} ${host}`)
  }
  for (const bad of [
    '',
    '10.0.0.0/33',
    '10.0.0/8',
    'fd00::/129',
    '1.2.3.4/24',
    'localhost',
    '/8',
  ]) {
    t.throws(() => parseSubnet(bad), { instanceOf: RangeError }, bad)
  }
})

test('the first rule that fits the name and admits the client decides; no rule, no export', (t) => {
  const rules = rulesOf(
    rule('disk*', near('10.0.0.0/8')),
    rule('disk*', { readOnly: true, certificates: ['c.example', 'd.example'] }),
  )
  const grant = (host: string, ...names: string[]) => grantOf(rules, 'disk1', { host, names })
  t.false(grant('10.1.1.1')?.readOnly)
  t.true(grant('11.1.1.1', 'd.example')?.readOnly)
  t.is(grant('11.1.1.1', 'e.example'), undefined)
  t.is(grantOf(rules, 'other', { host: '10.1.1.1', names: [] }), undefined)
  t.is(grantOf(rulesOf(), 'disk1', { host: undefined, names: [] }), undefined)
})

test('every question about a refused export is answered ERR_POLICY, whether there is one or not', async (t) => {
  const rules = rulesOf(rule('open'), rule('closed', near('10.0.0.0/8')))
  const questions = (name: string) => [
    option(Option.STRUCTURED_REPLY),
    option(Option.INFO, infoData(name)),
    option(Option.LIST_META_CONTEXT, metaData(name)),
    option(Option.SET_META_CONTEXT, metaData(name, 'base:allocation')),
    option(Option.GO, infoData(name)),
  ]
  for (const name of ['closed', 'nowhere']) {
    const { lines } = await said(volumes('open', 'closed'), rules, '11.0.0.1', ...questions(name))
    const refusal = `ERR_POLICY "export '${name}' is not for this client"`
    t.deepEqual(lines, ['8 ACK', `6 ${refusal}`, `9 ${refusal}`, `10 ${refusal}`, `7 ${refusal}`])
  }
})

test('the old way to ask for a refused export costs the connection and opens nothing', async (t) => {
  const source = volumes('closed')
  const { connection } = await said(
    ...([source, rulesOf(rule('open')), '11.0.0.1'] as const),
    option(Option.EXPORT_NAME, Buffer.from('closed')),
  )
  t.true(connection.destroyed)
  t.is(source.opens, 0)
})

test('a list shows what its reader may have and is not hidden, with the description of the rule', async (t) => {
  const rules = rulesOf(
    rule('secret', { hidden: true }),
    rule('near', near('10.0.0.0/8')),
    rule('*1', { description: 'the first one' }),
  )
  const source = volumes('disk1', 'disk2', 'near', 'secret')
  const list = option(Option.LIST)
  const near10 = await said(source, rules, '10.0.0.1', list)
  t.deepEqual(
    near10.lines.map((line) => line.split(':')[0]),
    ['3 SERVER disk1', '3 SERVER near', '3 ACK'],
  )
  t.true(near10.lines[0]?.endsWith(': the first one'))
  const far = await said(source, rules, '11.0.0.1', list, option(Option.INFO, infoData('secret')))
  t.deepEqual(
    far.lines.map((line) => line.split(':')[0]!.replace(/size.*/, '')),
    ['3 SERVER disk1', '3 ACK', '6 INFO export ', '6 ACK'],
  )
})

test('read-only by rule: said in the flags, and held against a client that does not look', async (t) => {
  const source = volumes('v')
  const rules = rulesOf(rule('v', { readOnly: true }))
  const { lines, feed, connection } = await said(
    ...([source, rules, '10.0.0.1'] as const),
    option(Option.STRUCTURED_REPLY),
    option(Option.SET_META_CONTEXT, metaData('v', 'base:allocation')),
    option(Option.GO, infoData('v')),
  )
  const flags = /flags=(0x[0-9a-f]+)/.exec(lines.join())?.[1]
  t.is(Number(flags) & 2, 2, 'READ_ONLY')
  const before = connection.sent.length
  const data = Buffer.alloc(512, 1)
  await feed(
    ask({ type: Command.WRITE, cookie: 1, data }),
    ask({ type: Command.WRITE_ZEROES, cookie: 2, length: 512 }),
    ask({ type: Command.TRIM, cookie: 3, length: 512 }),
    ask({ type: Command.READ, cookie: 4, length: 512 }),
    ask({ type: Command.BLOCK_STATUS, cookie: 5, length: 512 }),
  )
  const replies = replyTranscript(connection.sent.subarray(before))
  t.deepEqual(replies, [
    ...[1, 2, 3].map((cookie) => `${cookie} error=1 "export is read-only" done`),
    '4 data @0 512x00 done',
    '5 status id=1 512:3 done',
  ])
})

test('the empty name is the configured export, else the only one the client may see', async (t) => {
  const source = volumes('a', 'b')
  const name = option(Option.INFO, infoData('', 1))
  const nameOf = ({ lines }: { lines: readonly string[] }): string | undefined =>
    lines.find((line) => line.includes('text1'))
  const named: ExportRules = { defaultExport: 'b', rules: undefined }
  t.is(nameOf(await said(source, named, '10.0.0.1', name)), '6 INFO text1 b')
  const one = rulesOf(rule('a', { readOnly: true }), rule('b', { hidden: true }))
  t.is(nameOf(await said(source, one, '10.0.0.1', name)), '6 INFO text1 a')
  const both = await said(source, rulesOf(rule('*')), '10.0.0.1', name)
  t.deepEqual(both.lines, ['6 ERR_UNKNOWN "no default export: name one"'])
  const closed: ExportRules = { defaultExport: 'b', rules: [rule('a')] }
  t.regex((await said(source, closed, '10.0.0.1', name)).lines[0] ?? '', /^6 ERR_POLICY/)
})
