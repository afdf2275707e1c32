// What a client of one connection sent on the one before never comes late, over what it wrote since.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { OneConnection } from '../../src/doors/sheepdog/one-connection.js'
import { asVid, dataOid } from '../../src/model/oid.js'
import { OK, type Reply } from '../../src/sheep/answer.js'
import { Caller } from '../../src/sheep/caller.js'
import { Frame } from '../../src/wire/sheepdog/frame.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'

interface How {
  readonly index?: number
  readonly version?: number
  readonly opcode?: number
}

class Rig {
  readonly door = new OneConnection()
  readonly begun: string[] = []
  readonly answered: string[] = []
  onBegin: (name: string) => void = () => undefined
  readonly #ends = new Map<string, Reply>()

  write(name: string, caller: Caller, how: How = {}): void {
    const { index = 0, version = 0, opcode = Op.WRITE_OBJ } = how
    const head = objectRequest({ opcode, flags: Flag.WRITE, oid: dataOid(asVid(7), index) })
    head[0] = version
    const reply: Reply = ({ result }) => {
      this.answered.push(result === Code.SUCCESS ? name : `${name} given up`)
    }
    this.door.inTurn(new Frame(head), caller, reply, (ended) => {
      this.begun.push(name)
      this.#ends.set(name, ended)
      this.onBegin(name)
    })
  }

  end(name: string): void {
    this.#ends.get(name)!(OK)
  }
}

test('writes of one connection begin as they come, those of the next when they have ended', (t) => {
  const rig = new Rig()
  const [before, after] = [new Caller(), new Caller()]
  rig.write('old 1', before)
  rig.write('old 2', before, { opcode: Op.CREATE_AND_WRITE_OBJ })
  rig.write('again 1', after)
  rig.write('again 2', after)
  rig.write('elsewhere', after, { index: 1 })
  t.deepEqual(rig.begun, ['old 1', 'old 2', 'elsewhere'])
  before.leave()
  rig.end('old 2')
  t.deepEqual(rig.begun, ['old 1', 'old 2', 'elsewhere'])
  rig.end('old 1')
  t.deepEqual(rig.begun.slice(3), ['again 1', 'again 2'])
  rig.write('new', after)
  t.is(rig.begun.at(-1), 'new')
  for (const name of ['again 1', 'again 2', 'new', 'elsewhere']) rig.end(name)
  t.is(rig.door.size, 0)
})

test('a connection that ends while its writes wait costs the others nothing', (t) => {
  const rig = new Rig()
  const [first, second, third] = [new Caller(), new Caller(), new Caller()]
  rig.write('first', first)
  rig.write('second', second)
  rig.write('third', third)
  second.leave()
  t.deepEqual(rig.answered, ['second given up'])
  rig.end('first')
  t.deepEqual(rig.begun, ['first', 'third'])
  rig.end('third')
  t.deepEqual(rig.answered, ['second given up', 'first', 'third'])
  t.is(rig.door.size, 0)
})

test('clients with several connections, and reads, do not wait', (t) => {
  const rig = new Rig()
  rig.write('one', new Caller(), { version: 1 })
  rig.write('other', new Caller(), { version: 1 })
  rig.write('dog', new Caller(), { version: 2 })
  rig.write('read', new Caller(), { opcode: Op.READ_OBJ })
  t.deepEqual(rig.begun, ['one', 'other', 'dog', 'read'])
})

test('a client with several connections waits for what it sent over one that has ended', (t) => {
  const rig = new Rig()
  const [gone, living, next] = [new Caller(), new Caller(), new Caller()]
  rig.write('late', gone, { version: 1 })
  rig.write('beside', living, { version: 1 })
  gone.leave()
  rig.write('again', next, { version: 1 })
  rig.write('beside 2', living, { version: 1 })
  rig.write('elsewhere', next, { version: 1, index: 1 })
  t.deepEqual(rig.begun, ['late', 'beside', 'elsewhere'])
  rig.end('beside')
  t.deepEqual(rig.begun.slice(3), [])
  rig.end('late')
  t.deepEqual(rig.begun.slice(3), ['again', 'beside 2'])
  for (const name of ['again', 'beside 2', 'elsewhere']) rig.end(name)
  t.is(rig.door.size, 0)
})

test('a connection that ends when one of its writes goes on leaves nobody behind', (t) => {
  const rig = new Rig()
  const [first, second, third] = [new Caller(), new Caller(), new Caller()]
  rig.write('first', first)
  rig.write('second', second)
  rig.write('second too', second)
  rig.write('third', third)
  rig.onBegin = (name) => {
    if (name === 'second') second.leave()
  }
  rig.end('first')
  t.deepEqual(rig.begun, ['first', 'second'])
  rig.end('second')
  t.deepEqual(rig.begun, ['first', 'second', 'third'])
  rig.end('third')
  t.is(rig.door.size, 0)
})
