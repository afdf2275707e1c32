/** The binding to the kernel's NBD client: what it refuses, and a netlink answer of this very kernel. */
import { createRequire } from 'node:module'
import test from 'ava'
import { decodeFamily, decodeReply, encodeFamilyQuestion } from '../../src/wire/netlink/messages.js'
import { NodeNbdKernel } from '../../src/world/node/nbd-kernel.js'

const binding = createRequire(import.meta.url)('../../native/nbd.node') as Record<
  string,
  (...args: unknown[]) => unknown
>

const SETTINGS = { blockBytes: 512, blocks: 1, flags: 1, timeoutSeconds: 0 }

test('wrong arguments throw and touch nothing', (t) => {
  const calls: readonly (readonly [string, ...unknown[]])[] = [
    ['netlink'],
    ['netlink', 'text'],
    ['netlink', new Uint8Array(15)],
    ['watch', -1, () => undefined],
    ['watch', 1, 'no function'],
    ['serve', '', SETTINGS, [1]],
    ['serve', '/dev/null', SETTINGS, []],
    ['serve', '/dev/null', SETTINGS, Array(17).fill(1)],
    ['serve', '/dev/null', { ...SETTINGS, blocks: 0.5 }, [1]],
    ['serve', '/dev/null', undefined, [1]],
    ['hangUp', 7],
    ['hangUp', 'a\0b'],
    ['noticeDeath', 1.5, 1000],
    ['noticeDeath', Number.NaN, 1000],
  ]
  for (const [name, ...args] of calls) t.throws(() => binding[name]!(...args), undefined, name)
})

test('what is no NBD device is refused by the kernel, not by a crash', async (t) => {
  const kernel = new NodeNbdKernel()
  t.throws(() => binding.serve!('/dev/null', SETTINGS, [1]), { code: 'ENOTTY' })
  await t.throwsAsync(binding.hangUp!('/dev/null') as Promise<void>, { code: 'ENOTTY' })
  await t.throwsAsync(binding.hangUp!('/dev/nothing-here') as Promise<void>, { code: 'ENOENT' })
  t.true(Array.isArray(await kernel.devices()))
})

test('the kernel answers netlink: its controller is a family, and what nobody registered is not', async (t) => {
  const kernel = new NodeNbdKernel()
  const known = decodeReply(await kernel.netlink(encodeFamilyQuestion('nlctrl')))
  t.is(known.errno, 0)
  t.is(decodeFamily(known.messages)!.id, 0x10)
  t.true(decodeFamily(known.messages)!.groups.has('notify'))
  const unknown = decodeReply(await kernel.netlink(encodeFamilyQuestion('no-such-thing')))
  t.is(unknown.errno, 2)
  t.deepEqual(unknown.messages, [])
})
