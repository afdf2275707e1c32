// Numbers of the sheepdog protocol, among which those of ours.
import test from 'ava'
import { Op } from '../../src/wire/sheepdog/opcodes.js'

test('no two requests have one number', (t) => {
  const numbers = Object.values(Op)
  t.deepEqual([...new Set<number>(numbers)], numbers)
})
