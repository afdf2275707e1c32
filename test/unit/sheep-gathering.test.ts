// Fragments of a coded object, gathered from nodes that answer in any order, late, or with a failure.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { codeFor } from '../../src/sheep/coding.js'
import { Gathering } from '../../src/sheep/gathering.js'
import { type Dice, dice } from '../faults/dice.js'
import { seeds } from './support/seeds.js'

const FRAGMENTS = 6
const P42 = codeFor(0x22)!
const FAILURES = [Code.NO_OBJ, Code.OLD_NODE_VER, Code.NETWORK_ERROR, Code.EIO] as const

interface Question {
  readonly index: number
  readonly got: (result: Code, bytes: Uint8Array) => void
  late: (() => void) | undefined
}

/** Asks all there is to ask, answers in an order of chance; what the gathering ended with, each time it did. */
function gather(chance: Dice, results: readonly Code[], answersAtOnce: boolean): Code[] {
  const ends: Code[] = []
  const open: Question[] = []
  const candidates = results.map((_, index) => index)
  const from = { count: FRAGMENTS, candidates }
  const gathering = new Gathering(P42, from, (result, fragments) => {
    ends.push(result)
    if (result !== Code.SUCCESS) return
    const there = fragments.flatMap((bytes, index) => (bytes === undefined ? [] : [index]))
    if (there.length !== 4) throw new Error(`${there.length} fragments`)
    if (there.some((index) => fragments[index]![0] !== index)) throw new Error('mixed up')
  })
  const answer = ({ index, got }: Question): void => got(results[index]!, Uint8Array.of(index))
  gathering.start((index, got, late) => {
    const question = { index, got, late }
    if (answersAtOnce && chance.below(2) === 0) answer(question)
    else open.push(question)
  })
  while (open.length > 0) {
    const at = chance.below(open.length)
    const question = open[at]!
    if (question.late !== undefined && chance.below(3) === 0) {
      const { late } = question
      question.late = undefined
      late()
    } else {
      open.splice(at, 1)
      answer(question)
    }
  }
  return ends
}

test('a gathering ends once, in success when enough fragments can be had, whatever the order of answers', (t) => {
  for (const seed of seeds(3000)) {
    const chance = dice(seed)
    const living = chance.below(FRAGMENTS + 1)
    const results = Array.from({ length: living }, () =>
      chance.below(2) === 0 ? Code.SUCCESS : chance.pick(FAILURES),
    )
    const ends = gather(chance, results, chance.below(2) === 0)
    const isEnough = results.filter((code) => code === Code.SUCCESS).length >= 4
    if (ends.length !== 1 || (ends[0] === Code.SUCCESS) !== isEnough) {
      t.fail(
        `SEED=${seed}: answers ${results.join()} ended ${ends.length} times, with ${ends.join()}`,
      )
    }
  }
  t.pass()
})

test('a success that comes last, after too many failures, is an end too', (t) => {
  const ends: Code[] = []
  const questions: Question[] = []
  const from = { count: FRAGMENTS, candidates: [0, 1, 2, 3] }
  new Gathering(P42, from, (result) => ends.push(result)).start((index, got, late) =>
    questions.push({ index, got, late }),
  )
  questions[0]!.got(Code.OLD_NODE_VER, new Uint8Array(0))
  for (const { index, got } of questions.slice(1)) {
    t.deepEqual(ends, [])
    got(Code.SUCCESS, Uint8Array.of(index))
  }
  t.deepEqual(ends, [Code.OLD_NODE_VER])
})
