/** `-i host=A[,port=P]`, what it makes the daemon listen at, and how it travels. */
import test from 'ava'
import { ioAddress, ioListeners } from '../../src/bin/io-option.js'
import { decodeNode, encodeNode } from '../../src/model/node.js'

test('host and port in any order, port 7000 by default, transport=tcp as 1.0 has it', (t) => {
  t.deepEqual(ioAddress('host=10.0.0.1'), { host: '10.0.0.1', port: 7000 })
  t.deepEqual(ioAddress('port=7001,host=fd00::1'), { host: 'fd00::1', port: 7001 })
  t.deepEqual(ioAddress('host=10.0.0.1,transport=tcp'), { host: '10.0.0.1', port: 7000 })
})

test('what nobody could connect to is refused, by name', (t) => {
  for (const [text, message] of [
    ['port=7001', /host=ADDRESS is missing/],
    ['host=', /'host='/],
    ['host=storage1', /'host=storage1'.*numeric/],
    ['host=0.0.0.0', /'host=0.0.0.0'/],
    ['host=10.0.0.1,port=0', /'port=0'/],
    ['host=10.0.0.1,port=70000', /1 to 65535/],
    ['host=10.0.0.1,transport=rdma', /'transport=rdma'/],
    ['10.0.0.1', /'10.0.0.1'/],
  ] as const) {
    t.throws(() => ioAddress(text), { message }, text)
  }
})

test('a port that is listened at on all addresses needs no second listener', (t) => {
  const io = { host: '10.0.0.1', port: 7000 }
  t.deepEqual(ioListeners(io, { bindAddress: undefined, port: 7000 }), [])
  t.deepEqual(ioListeners(io, { bindAddress: '10.0.0.1', port: 7000 }), [])
  t.deepEqual(ioListeners(io, { bindAddress: '192.168.0.1', port: 7000 }), [io])
  t.deepEqual(ioListeners(io, { bindAddress: undefined, port: 7001 }), [io])
  t.deepEqual(ioListeners(undefined, { bindAddress: undefined, port: 7000 }), [])
})

test('sd_node carries it where 1.0 has it, and nothing where there is none', (t) => {
  const node = { host: '192.168.0.1', port: 7000, vnodes: 128, zone: 1, spaceBytes: 1 }
  const bytes = encodeNode({ ...node, io: { host: '10.0.0.1', port: 7001 } })
  // node_id begins at 24, io_addr at 18 of it, io_port at 34.
  t.is(bytes.toString('hex', 42, 58), '0000000000000000000000000a000001')
  t.is(bytes.readUInt16LE(58), 7001)
  t.deepEqual(decodeNode(bytes).io, { host: '10.0.0.1', port: 7001 })
  t.false('io' in decodeNode(encodeNode(node)))
})
