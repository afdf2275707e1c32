// Sessions of the iSCSI door: commands and their data in every way it may come, order, aborts, ends, and rude initiators.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import {
  Answer,
  ISCSI_LIMITS,
  LoginStatus,
  Op,
  TaskFunction,
} from '../../src/wire/iscsi/constants.js'
import {
  INITIATOR,
  type Initiator,
  iscsiRig,
  memoryStore,
  outcomeOf,
  read10,
  settle,
  TARGET,
  write10,
} from './support/iscsi-rig.js'

const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0]
const POWER_ON = 'check 6/2900'

async function ready(more: Record<string, string> = {}) {
  const rig = await iscsiRig()
  const one = rig.connect()
  await one.login(more)
  await one.outcome({ cdb: TEST_UNIT_READY })
  return { ...rig, one }
}

const pattern = (length: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 9)) & 0xff))

test('a new initiator is told of the start once, then commands go through', async (t) => {
  const { connect } = await iscsiRig()
  const one = connect()
  const agreed = await one.login()
  t.is(agreed.get('MaxRecvDataSegmentLength'), String(ISCSI_LIMITS.segmentBytesMax))
  t.is(agreed.get('TargetPortalGroupTag'), '1')
  t.is(await one.outcome({ cdb: TEST_UNIT_READY }), POWER_ON)
  t.is(await one.outcome({ cdb: TEST_UNIT_READY }), 'good')
})

test('what is written is read, by immediate, unsolicited and solicited data, at every chunk size', async (t) => {
  for (const chunkBytes of [1, 47, 48, 1000, 1 << 20]) {
    const { one } = await ready()
    const data = pattern(8 * 512)
    const tag = one.tag
    const command = one.commandPdu({
      ...{ cdb: write10(3, 8), write: data.length, immediate: data.subarray(0, 512), isOpen: true },
    })
    const more = one.dataOut(tag, { at: 512, data: data.subarray(512, 1024) })
    await one.raw(Buffer.concat([command, more]), chunkBytes)
    const [r2t] = one.answers()
    t.is(r2t?.opcode, Answer.R2T)
    t.deepEqual([r2t!.header.readUInt32BE(40), r2t!.header.readUInt32BE(44)], [1024, 3072])
    const ttt = r2t!.header.readUInt32BE(20)
    const halves = [
      one.dataOut(tag, { ttt, at: 1024, data: data.subarray(1024, 2000), more: true }),
      one.dataOut(tag, { ttt, serial: 1, at: 2000, data: data.subarray(2000) }),
    ]
    await one.raw(Buffer.concat(halves), chunkBytes)
    t.deepEqual(one.answers().map(outcomeOf), ['good'])
    const [answer] = await one.ask({ cdb: read10(3, 8), read: data.length })
    t.true(answer!.data.equals(data), `chunks of ${chunkBytes}`)
  }
})

test('several R2Ts are open at once as agreed, and none more', async (t) => {
  const { one } = await ready({
    ...{ MaxBurstLength: '1024', FirstBurstLength: '512', MaxOutstandingR2T: '3' },
    InitialR2T: 'Yes',
  })
  const data = pattern(8 * 512)
  const tag = one.tag
  await one.raw(one.commandPdu({ cdb: write10(0, 8), write: data.length }))
  const asked = one.answers()
  t.deepEqual(
    asked.map(({ header }) => header.readUInt32BE(40)),
    [0, 1024, 2048],
  )
  // Answered in another order than asked.
  for (const { header } of [asked[2]!, asked[0]!, asked[1]!]) {
    const at = header.readUInt32BE(40)
    const ttt = header.readUInt32BE(20)
    await one.raw(one.dataOut(tag, { ttt, at, data: data.subarray(at, at + 1024) }))
  }
  const [last] = one.answers()
  const ttt = last!.header.readUInt32BE(20)
  await one.raw(one.dataOut(tag, { ttt, at: 3072, data: data.subarray(3072) }))
  t.deepEqual(one.answers().map(outcomeOf), ['good'])
  const read = await one.ask({ cdb: read10(0, 8), read: data.length })
  t.true(Buffer.concat(read.map((part) => part.data)).equals(data))
})

test('a long read comes in segments the initiator takes, with the status in the last', async (t) => {
  const { one, volume } = await ready({ MaxRecvDataSegmentLength: '1024', MaxBurstLength: '1536' })
  const data = pattern(5 * 512)
  volume.write(0, data, false, () => undefined)
  const answers = await one.ask({ cdb: read10(0, 5), read: data.length })
  t.deepEqual(
    answers.map(({ header, data: part }) => [
      ...[header.readUInt32BE(36), header.readUInt32BE(40), part.length],
      (header[1]! & 0x80) !== 0,
      (header[1]! & 1) !== 0,
    ]),
    [
      [0, 0, 1024, false, false],
      [1, 1024, 512, true, false],
      [2, 1536, 1024, true, true],
    ],
  )
  t.true(Buffer.concat(answers.map((one) => one.data)).equals(data))
})

test('digests: right ones pass both ways, a wrong one ends the connection before anything is done', async (t) => {
  const { one, volume } = await ready({ HeaderDigest: 'CRC32C,None', DataDigest: 'CRC32C' })
  const data = pattern(513).subarray(0, 512)
  const good = { cdb: write10(1, 1), write: 512, immediate: data }
  t.is(await one.outcome(good), 'good')
  const [answer] = await one.ask({ cdb: read10(1, 1), read: 512 })
  t.true(answer!.data.equals(data))
  volume.recording = true
  const bad = one.commandPdu(good)
  bad[60]! ^= 1
  await one.raw(bad)
  t.true(one.isClosed)
  t.deepEqual(volume.calls, [])
})

test('data that is not what may come ends its command and nothing else', async (t) => {
  const { one, volume } = await ready()
  volume.recording = true
  const wrongs = [{ at: 1 }, { at: 0, serial: 5 }, { at: 0, ttt: 99 }]
  for (const wrong of wrongs) {
    const tag = one.tag
    await one.raw(one.commandPdu({ cdb: write10(0, 2), write: 1024, isOpen: true }))
    await one.raw(one.dataOut(tag, { data: Buffer.alloc(512), ...wrong }))
    t.deepEqual(one.answers().map(outcomeOf), ['check b/4b00'])
    // What else comes of it is passed over.
    await one.raw(one.dataOut(tag, { at: 512, serial: 1, data: Buffer.alloc(512) }))
    t.deepEqual(one.answers(), [])
  }
  t.deepEqual(volume.calls, [])
  t.is(await one.outcome({ cdb: TEST_UNIT_READY }), 'good')
})

test('commands outside of the window are passed over; a gap ends the connection', async (t) => {
  const { one } = await ready()
  one.cmdSn += 1000
  t.is(await one.outcome({ cdb: TEST_UNIT_READY }), 'nothing')
  one.cmdSn -= 1002
  t.is(await one.outcome({ cdb: TEST_UNIT_READY }), 'nothing')
  t.is(await one.outcome({ cdb: TEST_UNIT_READY }), 'good')
  one.cmdSn += 2
  t.is(await one.outcome({ cdb: TEST_UNIT_READY }), 'nothing')
  t.true(one.isClosed)
})

test('the window closes while commands are at work, and opens again', async (t) => {
  const { one, volume } = await ready()
  const held: (() => void)[] = []
  volume.tap = (_verb, go) => void held.push(go)
  const most = ISCSI_LIMITS.windowCommands
  for (let i = 0; i < most; i++) await one.raw(one.commandPdu({ cdb: read10(i, 1), read: 512 }))
  t.is(held.length, most)
  one.answers()
  await one.raw(one.commandPdu({ cdb: read10(0, 1), read: 512 }))
  t.is(held.length, most, 'the one too many is not begun')
  one.cmdSn--
  for (const go of held.splice(0)) go()
  await settle()
  t.is(one.answers().length, most)
  await one.raw(one.commandPdu({ cdb: read10(0, 1), read: 512 }))
  t.is(held.length, 1)
})

test('ABORT TASK is answered when the write at work has ended, and the write is not', async (t) => {
  const { one, volume } = await ready()
  let go: () => void = () => undefined
  volume.tap = (_verb, run) => {
    go = run
  }
  const tag = one.tag
  await one.raw(one.commandPdu({ cdb: write10(0, 1), write: 512, immediate: Buffer.alloc(512) }))
  await one.manage(1, tag)
  t.deepEqual(one.answers(), [])
  go()
  await settle()
  t.deepEqual(
    one.answers().map(({ opcode, header }) => [opcode, header[2]]),
    [[Answer.TASK_MANAGEMENT, 0]],
  )
  await one.manage(1, 12345)
  t.deepEqual(
    one.answers().map(({ header }) => header[2]),
    [1],
  )
})

test('a command that ends while the one before it is aborted is counted out once', async (t) => {
  const { one, connect } = await ready()
  const two = connect()
  await two.login({}, '400000000002')
  // Waits for data, and the next one for its end.
  await one.raw(one.commandPdu({ cdb: write10(0, 1), write: 512 }))
  await one.raw(one.commandPdu({ cdb: TEST_UNIT_READY, attribute: 2 }))
  one.answers()
  await two.manage(TaskFunction.LUN_RESET)
  const last = one.answers().at(-1)!
  await one.outcome({ cdb: TEST_UNIT_READY })
  const [answer = last] = await one.ask({ cdb: TEST_UNIT_READY })
  const window = answer.header.readUInt32BE(32) - answer.header.readUInt32BE(28) + 1
  t.is(window, ISCSI_LIMITS.windowCommands)
})

test('an ORDERED command waits for those before it, and those after wait for it', async (t) => {
  const { one, volume } = await ready()
  const held: (() => void)[] = []
  volume.tap = (_verb, go) => void held.push(go)
  const read = (attribute: number) =>
    one.raw(one.commandPdu({ cdb: read10(0, 1), read: 512, attribute }))
  for (const attribute of [1, 1, 2, 1]) await read(attribute)
  t.is(held.length, 2)
  for (const go of held.splice(0)) go()
  await settle()
  t.is(held.length, 1, 'the ordered one, alone')
  held.pop()!()
  await settle()
  t.is(held.length, 1)
})

test('COMPARE AND WRITE writes what it was compared for, and says where that differs', async (t) => {
  const { one, volume } = await ready()
  volume.write(512, Buffer.alloc(512, 1), false, () => undefined)
  const compare = (flags: number, expected: number, next: number) => ({
    cdb: [0x89, flags, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0],
    ...{
      write: 1024,
      immediate: Buffer.concat([Buffer.alloc(512, expected), Buffer.alloc(512, next)]),
    },
  })
  t.is(await one.outcome(compare(0, 2, 3)), 'check e/1d00')
  volume.recording = true
  t.is(await one.outcome(compare(0, 1, 3)), 'good')
  t.is(await one.outcome(compare(8, 3, 4)), 'good')
  t.deepEqual(
    volume.calls.filter((call) => call.startsWith('write')),
    ['write 512+512', 'write 512+512 fua'],
  )
})

test('what is read with FUA, or verified, is made durable first', async (t) => {
  const { one, volume } = await ready()
  volume.recording = true
  const fua = [0x28, 8, ...read10(0, 1).slice(2)]
  t.is(await one.outcome({ cdb: fua, read: 512 }), 'good')
  t.is(await one.outcome({ cdb: read10(0, 1), read: 512 }), 'good')
  t.is(await one.outcome({ cdb: [0x2f, ...read10(0, 1).slice(1)] }), 'good')
  t.deepEqual(volume.calls, ['flush', 'read 0+512', 'read 0+512', 'flush', 'read 0+512'])
  volume.tap = (verb, go, done) => (verb === 'flush' ? done(Code.EIO) : go())
  t.is(await one.outcome({ cdb: fua, read: 512 }), 'check 3/0c00')
})

test('what a lost session has left under way ends before anybody changes the same blocks', async (t) => {
  const { one, connect, volume } = await ready()
  const two = connect()
  await two.login({}, '400000000002')
  await two.outcome({ cdb: TEST_UNIT_READY })
  const held: (() => void)[] = []
  volume.tap = (_verb, go) => void held.push(go)
  const write = (who: Initiator, lba: number, byte: number) => {
    const immediate = Buffer.alloc(512, byte)
    return who.raw(who.commandPdu({ cdb: write10(lba, 1), write: 512, immediate }))
  }
  await write(one, 0, 1)
  one.wire.destroy()
  await settle()
  await write(two, 0, 2)
  t.is(held.length, 1, 'the same block waits')
  await write(two, 1, 3)
  t.is(held.length, 2, 'another one does not')
  const waiting = two.tag
  await write(two, 0, 4)
  await two.manage(1, waiting)
  t.deepEqual(
    two.answers().map(({ header }) => header[2]),
    [0],
    'what waits can be aborted',
  )
  held.shift()!()
  await settle()
  for (const go of held.splice(0)) go()
  await settle()
  t.deepEqual(two.answers().map(outcomeOf), ['good', 'good'])
  volume.tap = (_verb, go) => go()
  const [answer] = await two.ask({ cdb: read10(0, 1), read: 512 })
  t.true(answer!.data.equals(Buffer.alloc(512, 2)))
})

test('no task management is answered before what was aborted earlier has ended, too', async (t) => {
  const { one, connect, volume } = await ready()
  const two = connect()
  await two.login({}, '400000000002')
  await two.outcome({ cdb: TEST_UNIT_READY })
  let go: () => void = () => undefined
  volume.tap = (_verb, run) => {
    go = run
  }
  const tag = one.tag
  await one.raw(one.commandPdu({ cdb: write10(0, 1), write: 512, immediate: Buffer.alloc(512) }))
  await one.manage(1, tag)
  await one.manage(1, tag)
  await one.manage(2)
  await two.manage(5)
  t.deepEqual([...one.answers(), ...two.answers()], [])
  go()
  await settle()
  t.deepEqual(
    [...one.answers(), ...two.answers()].map(({ opcode, header }) => [opcode, header[2]]),
    new Array(4).fill([Answer.TASK_MANAGEMENT, 0]),
  )
})

test('a session that logs in anew begins when nothing of the former one can happen any more', async (t) => {
  const { one, connect, volume } = await ready()
  let go: () => void = () => undefined
  volume.tap = (_verb, run) => {
    go = run
  }
  await one.raw(one.commandPdu({ cdb: write10(0, 1), write: 512, immediate: Buffer.alloc(512) }))
  const again = connect()
  const logged = again.login().then(
    () => 'in',
    (error: Error) => error.message,
  )
  await settle()
  t.true(one.isClosed)
  // Not answered while the write of the former session is under way.
  t.is(await logged, 'no login response')
  go()
  await settle()
  const [answer] = again.answers()
  t.deepEqual([answer?.opcode, answer?.header.readUInt16BE(36)], [Answer.LOGIN, 0])
})

test('who is silent is asked, and who does not answer has to go; the volume comes back', async (t) => {
  const { one, clock, volume } = await ready()
  clock.advance(ISCSI_LIMITS.silenceMs)
  const [ping] = one.answers()
  t.is(ping?.opcode, Answer.NOP_IN)
  const pong = one.pdu(0x40 | Op.NOP_OUT, 0x80, Buffer.alloc(0), (header) => {
    header.writeUInt32BE(0xffffffff, 16)
    ping!.header.copy(header, 20, 20, 24)
    header.writeUInt32BE(one.cmdSn, 24)
  })
  await one.raw(pong)
  clock.advance(ISCSI_LIMITS.silenceMs)
  t.false(one.isClosed)
  clock.advance(2 * ISCSI_LIMITS.silenceMs)
  await settle()
  t.true(one.isClosed)
  t.is(volume.closes, 1)
})

test('closing asks initiators to log out, and finishes what is at work', async (t) => {
  const { one, server, clock, volume } = await ready()
  let go: () => void = () => undefined
  volume.tap = (_verb, run) => {
    go = run
  }
  await one.raw(one.commandPdu({ cdb: write10(0, 1), write: 512, immediate: Buffer.alloc(512) }))
  let isClosed = false
  const closed = server.close().then(() => {
    isClosed = true
  })
  await settle()
  t.deepEqual(
    one.answers().map(({ opcode, header }) => [opcode, header[36]]),
    [[Answer.ASYNC, 1]],
  )
  clock.advance(ISCSI_LIMITS.drainMs)
  await settle()
  t.false(isClosed)
  go()
  await settle()
  t.deepEqual(one.answers().map(outcomeOf), ['good'])
  await closed
  t.is(volume.closes, 1)
})

test('reservations with APTPL survive a restart, others do not', async (t) => {
  for (const aptpl of [true, false]) {
    const store = memoryStore()
    const register = async (one: Initiator, key: number, newKey: number, flags: number) => {
      const immediate = Buffer.alloc(24)
      immediate[7] = key
      immediate[15] = newKey
      immediate[20] = flags
      return one.outcome({ cdb: [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], write: 24, immediate })
    }
    const before = (await iscsiRig({ store })).connect()
    await before.login()
    await before.outcome({ cdb: TEST_UNIT_READY })
    t.is(await register(before, 0, 9, aptpl ? 1 : 0), 'good')
    const reserve = Buffer.alloc(24)
    reserve[7] = 9
    const cdb = [0x5f, 1, 1, 0, 0, 0, 0, 0, 24, 0]
    t.is(await before.outcome({ cdb, write: 24, immediate: reserve }), 'good')
    const { connect } = await iscsiRig({ store })
    const stranger = connect()
    await stranger.login({}, '400000000002')
    await stranger.outcome({ cdb: TEST_UNIT_READY })
    const write = { cdb: write10(0, 1), write: 512, immediate: Buffer.alloc(512) }
    t.is(await stranger.outcome(write), aptpl ? 'conflict' : 'good')
    const holder = connect()
    await holder.login()
    await holder.outcome({ cdb: TEST_UNIT_READY })
    t.is(await holder.outcome(write), 'good')
  }
})

test('PREEMPT AND ABORT does not wait for a reservation request that waits for it', async (t) => {
  const { one, connect } = await ready()
  const two = connect()
  await two.login({}, '400000000002')
  await two.outcome({ cdb: TEST_UNIT_READY })
  const prout = (action: number, key: number, newKey: number) => {
    const immediate = Buffer.alloc(24)
    immediate[7] = key
    immediate[15] = newKey
    return { cdb: [0x5f, action, 1, 0, 0, 0, 0, 0, 24, 0], write: 24, immediate }
  }
  t.is(await one.outcome(prout(0, 0, 1)), 'good')
  t.is(await two.outcome(prout(0, 0, 2)), 'good')
  one.wire.receive(one.commandPdu(prout(5, 1, 2)))
  two.wire.receive(two.commandPdu(prout(1, 2, 0)))
  await settle()
  t.deepEqual(one.answers().map(outcomeOf), ['good'])
  // The other's was aborted by it, and says so.
  t.deepEqual(two.answers().map(outcomeOf), ['status 64'])
})

test('rude logins are refused or dropped, and open nothing', async (t) => {
  const rig = await iscsiRig()
  const names = { InitiatorName: INITIATOR, TargetName: TARGET }
  const status = async (pairs: Record<string, string>, how = {}) =>
    (await rig.connect().loginStep(pairs, how)).status
  t.is(await status({ TargetName: TARGET }), LoginStatus.MISSING_PARAMETER)
  t.is(await status({ InitiatorName: INITIATOR }), LoginStatus.MISSING_PARAMETER)
  t.is(await status({ ...names, TargetName: `${TARGET}x` }), LoginStatus.NOT_FOUND)
  t.is(await status({ ...names, SessionType: 'Odd' }), LoginStatus.SESSION_TYPE)
  t.is(await status(names, { tsih: 5 }), LoginStatus.NO_SUCH_SESSION)
  t.is(await status(names, { flags: 0x8c }), LoginStatus.INVALID_REQUEST)
  t.is(await status({ ...names, MaxRecvDataSegmentLength: '1' }), LoginStatus.INITIATOR_ERROR)
  t.is(await status({ ...names, InitiatorName: 'a b' }), LoginStatus.INITIATOR_ERROR)
  const huge = rig.connect()
  await huge.raw(huge.pdu(0x43, 0x87, Buffer.alloc(9000), () => undefined))
  t.true(huge.isClosed)
  const early = rig.connect()
  await early.raw(early.commandPdu({ cdb: TEST_UNIT_READY }))
  t.true(early.isClosed)
  const slow = rig.connect()
  rig.clock.advance(ISCSI_LIMITS.loginIdleMs)
  t.true(slow.isClosed)
  await settle()
  t.is(rig.source.opens, 0)
})

test('unknown and impossible keys are answered one by one', async (t) => {
  const { connect } = await iscsiRig()
  const agreed = await connect().login({
    ...{ 'X-com.example.odd': 'x', MaxConnections: '8', ErrorRecoveryLevel: '2' },
    ...{ MaxBurstLength: '5', DataPDUInOrder: 'Maybe', HeaderDigest: 'MD5' },
  })
  t.deepEqual(
    ['X-com.example.odd', 'MaxConnections', 'ErrorRecoveryLevel', 'MaxBurstLength'].map((key) =>
      agreed.get(key),
    ),
    ['NotUnderstood', '1', '0', 'Reject'],
  )
  t.deepEqual([agreed.get('DataPDUInOrder'), agreed.get('HeaderDigest')], ['Reject', 'Reject'])
})
