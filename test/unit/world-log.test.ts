/** Log lines as they arrive in files and on stdout. Local time is made UTC where it is compared. */

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { LOG_LEVELS } from '../../src/base/log.js'
import { type LogOptions, openLog } from '../../src/world/node/log.js'
import { SyslogSink } from '../../src/world/node/log-sink.js'
import { loadNative } from '../../src/world/node/native.js'

const root = fs.mkdtempSync(join(tmpdir(), 'log-'))
test.after.always(() => fs.rmSync(root, { recursive: true }))

let made = 0
function fresh(): string {
  const dir = join(root, `${made++}`)
  fs.mkdirSync(dir)
  return dir
}
const linesOf = (dir: string): string[] =>
  fs.readFileSync(join(dir, 'sheep.log'), 'utf8').split('\n').slice(0, -1)

/** Runs `body` with a log in a process of its own. */
function run(options: LogOptions, body: string): ReturnType<typeof spawnSync> {
  const module = new URL('../../src/world/node/log.js', import.meta.url).href
  const script = `
    const { openLog } = await import(${JSON.stringify(module)})
    const log = openLog(${JSON.stringify(options)})
    ${body}`
  return spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, TZ: 'UTC' },
  })
}

const TIME = '(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 123]\\d \\d\\d:\\d\\d:\\d\\d'

test('the default format has time, level, event and fields', (t) => {
  const dir = fresh()
  const log = openLog({ dir, format: 'default', level: 'debug' })
  log.info('epoch.advance', { from: 1, to: 2n, reason: undefined })
  log.warn('disk.slow')
  log.error('disk.lost', { path: '/d0', last: true })
  log.debug('x')
  log.close()
  const expected = [
    `  INFO \\[main\\] epoch\\.advance from=1 to=2`,
    `  WARN \\[main\\] disk\\.slow`,
    ` ERROR \\[main\\] disk\\.lost path=/d0 last=true`,
    ` DEBUG \\[main\\] x`,
  ]
  const lines = linesOf(dir)
  t.is(lines.length, 4)
  expected.forEach((text, i) => {
    t.regex(lines[i] ?? '', new RegExp(`^${TIME} ${text}$`))
  })
})

test('the time is the local time of the machine', (t) => {
  const before = Date.now()
  const { stdout } = run({ destination: 'stdout' }, `log.info('x')`)
  const line = String(stdout)
  const time = Date.parse(`${line.slice(0, 15)} ${new Date(before).getUTCFullYear()} UTC`)
  t.true(Math.abs(time - before) < 60_000, line)
})

test('the server format, which is the default, tells the process', (t) => {
  const dir = fresh()
  const log = openLog({ dir })
  log.info('start')
  log.close()
  t.regex(linesOf(dir)[0] ?? '', new RegExp(`^${TIME}   INFO \\[${process.pid}:main\\] start$`))
})

test('the json format is one object a line', (t) => {
  const dir = fresh()
  const log = openLog({ dir, format: 'json' })
  log.info('vdi.create', { name: 'a "b"\n', id: 2n ** 63n, copies: 3 })
  log.close()
  const lines = linesOf(dir)
  t.is(lines.length, 1)
  const { time, ...rest } = JSON.parse(lines[0] ?? '') as Record<string, unknown>
  t.deepEqual(rest, {
    level: 'info',
    pid: process.pid,
    event: 'vdi.create',
    name: 'a "b"\n',
    id: '9223372036854775808',
    copies: 3,
  })
  t.true(Math.abs(Date.parse(String(time)) - Date.now()) < 60_000)
})

test('no value can look like another field, another line or an order to the terminal', (t) => {
  const dir = fresh()
  const log = openLog({ dir, format: 'default' })
  log.info('vdi.create', { name: 'x from=1', other: 'a\nNov 21', esc: '\x1b[2J\u009b', empty: '' })
  log.info('vdi.create', { quote: 'a"b', equals: 'a=b', time: 'never', level: 'emerg' })
  log.close()
  const lines = linesOf(dir)
  t.deepEqual(
    lines.map((line) => line.slice(line.indexOf(']') + 2)),
    [
      'vdi.create name="x from=1" other="a\\nNov 21" esc="\\u001b[2J\\u009b" empty=""',
      'vdi.create quote="a\\"b" equals="a=b" time_=never level_=emerg',
    ],
  )
})

test('levels hold back what is less grave, and change while running', (t) => {
  const dir = fresh()
  const log = openLog({ dir, level: 'warning' })
  const all = (): void => {
    log.error('e')
    log.warn('w')
    log.info('i')
    log.debug('d')
  }
  const counts = LOG_LEVELS.map((level) => {
    const before = linesOf(dir).length
    log.setLevel(level)
    all()
    return linesOf(dir).length - before
  })
  t.deepEqual(counts, [0, 0, 0, 1, 2, 2, 3, 4])
  log.close()
})

test('after rotation the lines go to the new file', (t) => {
  const dir = fresh()
  const log = openLog({ dir })
  log.info('one')
  fs.renameSync(join(dir, 'sheep.log'), join(dir, 'sheep.log.1'))
  log.info('two')
  log.reopen()
  log.info('three')
  log.close()
  log.info('lost')
  log.reopen()
  t.is(
    fs
      .readFileSync(join(dir, 'sheep.log.1'), 'utf8')
      .match(/one|two|three/g)
      ?.join(),
    'one,two',
  )
  t.is(linesOf(dir).length, 1)
  t.regex(linesOf(dir)[0] ?? '', / three$/)
})

test('an existing log is continued; a directory that is not there is refused', (t) => {
  const dir = fresh()
  for (const event of ['one', 'two']) {
    const log = openLog({ dir })
    log.info(event)
    log.close()
  }
  t.is(linesOf(dir).length, 2)
  t.throws(() => openLog({ dir: join(dir, 'none') }), { code: 'ENOENT' })
  t.throws(() => openLog({}), { instanceOf: TypeError })
})

test('the last line before a crash is there', (t) => {
  const dir = fresh()
  const result = run(
    { dir, format: 'default' },
    `log.info('last'); process.kill(process.pid, 'SIGKILL')`,
  )
  t.is(result.signal, 'SIGKILL')
  t.regex(linesOf(dir)[0] ?? '', / last$/)
})

test('a full disk loses lines, says so, and stops nothing', (t) => {
  const dir = fresh()
  fs.symlinkSync('/dev/full', join(dir, 'sheep.log'))
  const { status, stderr } = run(
    { dir, format: 'default' },
    `const fs = await import('node:fs')
     log.info('one'); log.info('two')
     fs.unlinkSync(${JSON.stringify(join(dir, 'sheep.log'))})
     log.reopen(); log.info('three'); log.info('four')`,
  )
  t.is(status, 0)
  t.regex(String(stderr), /^sheep: the log .*sheep\.log cannot be written: ENOSPC[^\n]*\n$/)
  const lines = linesOf(dir)
  t.is(lines.length, 3)
  t.is(lines[0], '(2 lines could not be written)')
  t.regex(lines[1] ?? '', / three$/)
})

test('the system log gets the severity and one line without a time', (t) => {
  const got: [number, string][] = []
  const sink = new SyslogSink({ ...loadNative(), syslog: (...line) => got.push(line) })
  sink.write(3, 'a\0b')
  sink.write(6, 'é'.repeat(10_000))
  sink.close()
  sink.write(6, 'lost')
  t.deepEqual(got[0], [3, 'a\\0b'])
  t.is(got[1]?.[0], 6)
  t.true(Buffer.byteLength(got[1]?.[1] ?? '') < 8192)
  t.is(got.length, 2)
})
