// [[iscsi.target]] of the configuration file: what it grants, and what is said of mistakes, in which no secret is told.
import test from 'ava'
import { Command } from 'commander'
import { parseConfig } from '../../src/bin/config-file.js'
import { addIscsiOptions } from '../../src/bin/iscsi-options.js'
import {
  grantOf,
  nameOfTarget,
  type TargetRules,
  targetNameOf,
} from '../../src/doors/iscsi/target-rules.js'

const keys = {
  options: addIscsiOptions(new Command()).options,
  notServed: new Map<string, string>(),
}
const rulesOf = (text: string): TargetRules => parseConfig('F', text, keys).targets
const SECRET = 'a secret of bytes'

test('the first rule that fits the name and admits the initiator grants; no rule, no target', (t) => {
  const rules = rulesOf(`
[iscsi]
listen = [3260, "[::1]:3261"]
[[iscsi.target]]
name = "Alice*"
initiators = ["iqn.1993-08.org.debian:*"]
addresses = ["10.0.0.0/8"]
[[iscsi.target]]
name = "disks"
luns = ["Bob", "Carol@monday"]
read-only = true
block-size = 4096
`)
  const caller = { initiator: 'iqn.1993-08.org.debian:01:a', host: '10.1.2.3' }
  t.is(grantOf(rules, 'Alice1', caller)?.blockBytes, 512)
  t.is(grantOf(rules, 'Alice1', { ...caller, host: '11.1.2.3' }), undefined)
  t.is(grantOf(rules, 'Alice1', { ...caller, initiator: 'iqn.x' }), undefined)
  t.is(grantOf(rules, 'Bob', caller), undefined)
  const disks = grantOf(rules, 'DISKS', { initiator: 'x', host: undefined })
  t.deepEqual(
    [disks?.luns, disks?.readOnly, disks?.blockBytes],
    [['Bob', 'Carol@monday'], true, 4096],
  )
  t.is(grantOf(rulesOf(''), 'anything', caller)?.chap, undefined)
})

test('mistakes are named, secrets are not', (t) => {
  const complaint = (text: string): string => {
    const message = t.throws(() => rulesOf(`[iscsi]\n${text}`))?.message ?? ''
    t.false(message.includes(SECRET))
    return message.replace(/^F(, line \d+)?: /, '')
  }
  const target = (text: string): string => complaint(`[[iscsi.target]]\nname = "a"\n${text}`)
  t.regex(complaint('prefix = "disk"'), /iscsi\.prefix: it is a name such as/)
  t.regex(complaint('[[iscsi.target]]\nluns = ["a"]'), /target\[0\]: it has no name/)
  t.regex(target('block-size = 1024'), /it is one of 512, 4096/)
  t.regex(target('lun = ["a"]'), /no such key; is 'luns' meant/)
  t.regex(target('chap = [{ user = "u", secret = "short" }]'), /secret of u is shorter than 12/)
  t.regex(target(`chap = [{ user = "u", secrets = "${SECRET}" }]`), /is 'secret' meant/)
  t.regex(target(`mutual-chap = { user = "u", secret = "${SECRET}" }`), /it goes with chap/)
  const both = `chap = [{ user = "u", secret = "${SECRET}" }]`
  t.regex(
    target(`${both}\nmutual-chap = { user = "v", secret = "${SECRET}" }`),
    /its secret must differ/,
  )
})

test('names of disks and targets are translated both ways', (t) => {
  for (const name of ['Alice', 'a b', 'Alice@monday', '100%', 'Grüße', 'a:b.c-d_e']) {
    const target = targetNameOf('iqn.2026-11.x', name)
    t.regex(target ?? '', /^iqn\.2026-11\.x:[A-Za-z0-9.:@_%-]+$/)
    t.is(nameOfTarget('iqn.2026-11.x', target ?? ''), name)
  }
  t.is(targetNameOf('iqn.2026-11.x', 'a'.repeat(220)), undefined)
  t.is(nameOfTarget('iqn.2026-11.x', 'iqn.2026-11.y:Alice'), undefined)
  t.is(nameOfTarget('iqn.2026-11.x', 'IQN.2026-11.X:Alice'), 'Alice')
})
