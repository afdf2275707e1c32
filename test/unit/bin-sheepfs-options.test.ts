// What sheepfs makes of its command line: its own options, and the words mount(8) gives a helper.
import test from 'ava'
import { parseSheepfsOptions, type SheepfsOptions } from '../../src/bin/sheepfs-options.js'

function parsed(...words: readonly string[]): SheepfsOptions {
  const result = parseSheepfsOptions(words, '1')
  if (result.kind !== 'run') throw new Error(`exit ${result.status}`)
  return result.options
}

/** What is refused: the words on stderr. */
function refused(...words: readonly string[]): string {
  const said: string[] = []
  const { write } = process.stderr
  process.stderr.write = (text: string | Uint8Array): boolean => said.push(String(text)) > 0
  try {
    const result = parseSheepfsOptions(words, '1')
    if (result.kind === 'run' || result.status === 0) throw new Error('it was accepted')
    return said.join('')
  } finally {
    process.stderr.write = write
  }
}

test.serial('a sheep is named by options, in front of the mount point, or not at all', (t) => {
  const at = (...words: readonly string[]): string => {
    const { host, port, mountPoint } = parsed(...words)
    return `${host} ${port} ${mountPoint}`
  }
  t.is(at('/mnt'), '127.0.0.1 7000 /mnt')
  t.is(at('-a', 'one', '-p', '7001', '/mnt'), 'one 7001 /mnt')
  t.is(at('one', '/mnt'), 'one 7000 /mnt')
  t.is(at('one:7001', '/mnt'), 'one 7001 /mnt')
  t.is(at('[fd00::1]:7001', '/mnt'), 'fd00::1 7001 /mnt')
  t.is(at('sheepdog', '/mnt', '-o', 'host=one,port=7001'), 'one 7001 /mnt')
  t.regex(refused('one:two', '/mnt'), /'one:two' is no HOST\[:PORT\]/)
  t.regex(refused('-p', '0', '/mnt'), /a port is a number from 1 to 65535/)
  t.regex(refused(), /no MOUNTPOINT; try 'sheepfs --help'/)
  t.regex(refused('a', 'b', 'c'), /too many arguments/)
})

test.serial('mount options are those of fstab, and what none is is said', (t) => {
  const options = parsed('x', '/mnt', '-o', 'rw,_netdev,nofail,x-systemd.automount,noatime')
  t.deepEqual(options.flags, ['noatime'])
  t.false(options.readOnly || options.allowOther || options.defaultPermissions)
  t.true(parsed('/mnt', '-o', 'ro').readOnly)
  t.is(parsed('/mnt', '-o', 'io_timeout=7').patienceMs, 7000)
  t.is(parsed('/mnt').patienceMs, undefined)
  const owned = parsed('/mnt', '-o', 'uid=10', '-o', 'gid=20')
  t.deepEqual([owned.uid, owned.gid], [10, 20])
  t.regex(refused('/mnt', '-o', 'rw,bogus=1'), /'bogus=1' is no mount option of sheepfs/)
  t.regex(refused('/mnt', '-o', 'uid=me'), /uid is a number/)
  t.regex(refused('/mnt', '-o', 'allow_root'), /see allow_other/)
})

test.serial('who lets others in lets them in as modes say', (t) => {
  const { allowOther, defaultPermissions } = parsed('/mnt', '-o', 'allow_other')
  t.true(allowOther && defaultPermissions)
})
