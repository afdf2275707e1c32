/** The configuration file: options and rules out of TOML, and what is said of mistakes in it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Command } from 'commander'
import { silentLog } from '../../src/base/log.js'
import { parseConfig } from '../../src/bin/config-file.js'
import { exportBook } from '../../src/bin/export-book.js'
import { parseSheepOptions, type SheepOptions } from '../../src/bin/sheep-options.js'
import { grantOf } from '../../src/doors/nbd/export-rules.js'

function fileOf(t: ExecutionContext, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'sheep-config-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'sheep.toml')
  writeFileSync(path, text)
  return path
}

function optionsOf(t: ExecutionContext, text: string, ...argv: readonly string[]): SheepOptions {
  const parsed = parseSheepOptions(['--config', fileOf(t, text), ...argv], '2.0.0')
  if (parsed.kind === 'exit') throw new Error('refused')
  return parsed.options
}

/** What is said of a file. */
function complaint(t: ExecutionContext, text: string): string {
  const options = new Command()
    .option('--port <n>')
    .option('--gateway')
    .option('--nbd <where>', '', (word, before: string[]) => [...before, word], [])
    .option('--nbd-tls <mode>').options
  const notServed = new Map([['http', 'the HTTP front end']])
  const error = t.throws(() => parseConfig('F', text, { options, notServed }))
  return error?.message ?? ''
}

const EVERYTHING = `
path = ["/store", "/disk1"]
port = 7005
gateway = true
cluster = "local:here"
recovery = "max=4,interval=100"

[nbd]
listen = [10810, "unix:/run/nbd.sock", "[::1]:10811"]
default-export = "Alice"

[[nbd.export]]
name = "Alice*"
addresses = ["10.0.0.0/8", "unix"]

[[nbd.export]]
name = "*"
read-only = true
certificates = ["client.example"]
`

test('long options are keys, those of NBD in a table; the store is one too', (t) => {
  const options = optionsOf(t, EVERYTHING)
  t.is(options.metaDirectory, '/store')
  t.deepEqual(options.disks, ['/disk1'])
  t.is(options.port, 7005)
  t.deepEqual(options.role, { kind: 'gateway' })
  t.deepEqual(options.cluster, { driver: 'local', option: 'here' })
  t.deepEqual(options.recovery.throttling, { max: 4, intervalMs: 100 })
  const path = '/run/nbd.sock'
  t.deepEqual(options.nbd, [{ host: '', port: 10810 }, { path }, { host: '::1', port: 10811 }])
  t.is(options.nbdRules.defaultExport, 'Alice')
  t.is(options.nbdRules.rules?.length, 2)
})

test('what is on the command line wins over the file', (t) => {
  const options = optionsOf(t, EVERYTHING, '-p', '7006', '--nbd', '10900', '/other')
  t.is(options.metaDirectory, '/other')
  t.deepEqual(options.disks, [])
  t.is(options.port, 7006)
  t.deepEqual(options.nbd, [{ host: '', port: 10900 }])
})

test('mistakes are named with file, line and key, and what may have been meant', (t) => {
  t.is(complaint(t, '\nprot = 1\n'), "F, line 2: prot: there is no such key; is 'port' meant?")
  t.is(
    complaint(t, 'nonsense-altogether = 1'),
    'F, line 1: nonsense-altogether: there is no such key',
  )
  t.is(
    complaint(t, 'http = "x"'),
    'F, line 1: http: this release does not serve the HTTP front end',
  )
  t.is(complaint(t, 'gateway = "yes"'), 'F, line 1: gateway: it is true or false')
  t.is(complaint(t, 'port = [1, 2]'), 'F, line 1: port: it is one value, not a list')
  t.is(
    complaint(t, 'port = 1.5'),
    'F, line 1: port: it is a text or a whole number, or a list of those',
  )
  t.regex(complaint(t, 'port = 1\nport ='), /^F, line 2: /)
  t.is(
    complaint(t, '[nbd]\nlisen = 1'),
    "F, line 2: nbd.lisen: there is no such key; is 'listen' meant?",
  )
  t.is(complaint(t, 'nbd-tls = "on"\n[nbd]\ntls = "on"'), 'F, line 1: nbd-tls: it is there twice')
})

test('mistakes in rules are named the same way: none is passed over', (t) => {
  const rule = (text: string): string =>
    complaint(t, `[nbd]\n[[nbd.export]]\nname = "a"\n[[nbd.export]]\n${text}`)
  t.is(rule('hidden = true'), "F, line 4: nbd.export[1]: it has no name, such as name = 'Alice'")
  t.is(
    rule('name = "b"\nreadonly = true'),
    "F, line 6: nbd.export[1].readonly: there is no such key; is 'read-only' meant?",
  )
  t.is(rule('name = "b"\nread-only = 1'), 'F, line 6: nbd.export[1].read-only: it is true or false')
  t.is(
    rule('name = "b"\naddresses = ["10.0.0.1/8"]'),
    "F, line 6: nbd.export[1].addresses: '10.0.0.1/8' has bits set beyond its first 8",
  )
  t.is(
    complaint(t, '[nbd]\nexport = "Alice"'),
    'F, line 2: nbd.export: rules are tables of their own, [[nbd.export]]',
  )
})

test('a mistake ends the start with status 1; --check-config says whether there is one', (t) => {
  const check = (text: string): unknown =>
    parseSheepOptions(['--check-config', '--config', fileOf(t, text)], '2.0.0')
  t.deepEqual(check(EVERYTHING), { kind: 'exit', status: 0 })
  t.deepEqual(check('prot = 1'), { kind: 'exit', status: 1 })
  t.deepEqual(check('nbd-tls = "on"'), { kind: 'exit', status: 1 })
  const missing = parseSheepOptions(['--config', '/nowhere/sheep.toml'], '2.0.0')
  t.deepEqual(missing, { kind: 'exit', status: 1 })
})

test('reloading takes the new rules; of a bad file it takes nothing', (t) => {
  const rule = (name: string): string => `[nbd]\n[[nbd.export]]\nname = "${name}"\n`
  const path = fileOf(t, rule('a'))
  const parsed = parseSheepOptions(['--config', path], '2.0.0')
  if (parsed.kind === 'exit') throw new Error('refused')
  const { nbdRules, config } = parsed.options
  const lines: string[] = []
  const log = { ...silentLog, warn: (event: string) => void lines.push(event) }
  const book = exportBook(nbdRules, config, log)
  const nobody = { host: undefined, names: [] }
  const may = (name: string): boolean => grantOf(book.current, name, nobody) !== undefined
  t.deepEqual([may('a'), may('b')], [true, false])
  writeFileSync(path, rule('b'))
  book.reload()
  t.deepEqual([may('a'), may('b')], [false, true])
  writeFileSync(path, `${rule('a')}\nhiden = true`)
  book.reload()
  t.deepEqual([may('a'), may('b')], [false, true])
  writeFileSync(path, `port = 7100\n${rule('b')}`)
  book.reload()
  t.deepEqual(lines, ['config.needs-restart'])
})
