// The kernel's FUSE protocol against a tree in memory: what a kernel sends (the INIT is Linux 6.18's, recorded), and frames no kernel sends.
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import type { Directory, FileNode, OpenFile, TreeNode } from '../../src/sheepfs/node.js'
import { facts, fixedDirectory } from '../../src/sheepfs/text-file.js'
import { Errno, FuseOp } from '../../src/wire/fuse/constants.js'
import { type Answer, memoryFile, numbers, Rig, request, turns } from './support/fuse-rig.js'

const tree = (file: TreeNode): Directory =>
  fixedDirectory(new Map<string, () => TreeNode>([['disk.raw', () => file]]), 0)

const READ = (handle: number, offset: number, size: number): Buffer =>
  numbers([8, handle], [8, offset], [4, size], [4, 0], [8, 0], [4, 0], [4, 0])

async function openDisk(rig: Rig): Promise<{ node: number; handle: number }> {
  const entry = await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')
  const node = entry.body.readUInt32LE(0)
  const opened = await rig.ask(FuseOp.OPEN, node, numbers([4, 2], [4, 0]))
  return { node, handle: opened.body.readUInt32LE(0) }
}

test('the kernel gets the version it can speak, and writes of a MiB', async (t) => {
  const rig = new Rig(tree(memoryFile(Buffer.alloc(10))))
  await rig.start()
  const [{ errno, body }] = rig.answers as [Answer]
  t.is(errno, 0)
  t.is(body.length, 64)
  t.deepEqual([body.readUInt32LE(0), body.readUInt32LE(4)], [7, 38])
  t.is(body.readUInt32LE(20), 1 << 20)
  t.is(body.readUInt16LE(28), 256)
})

test('a file is found, read and written; its attributes are those of struct fuse_attr', async (t) => {
  const bytes = Buffer.from('0123456789')
  const rig = new Rig(tree(memoryFile(bytes)))
  await rig.start()
  const entry = await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')
  t.is(entry.body.length, 128)
  t.is(entry.body.readUInt32LE(40 + 8), 10, 'size')
  t.is(entry.body.readUInt32LE(40 + 32), 1_700_000_000, 'mtime')
  t.is(entry.body.readUInt32LE(40 + 52), 500_000_000, 'its nanoseconds')
  t.is(entry.body.readUInt32LE(40 + 40), 1_700_000_000, 'ctime, which is not older')
  t.is(entry.body.readUInt32LE(40 + 60), 0o100644, 'mode')
  t.is(entry.body.readUInt32LE(40 + 68), 1000, 'uid')
  const { node, handle } = await openDisk(rig)
  t.is((await rig.ask(FuseOp.READ, node, READ(handle, 2, 4))).body.toString(), '2345')
  const write = numbers([8, handle], [8, 8], [4, 2], [4, 0], [8, 0], [4, 0], [4, 0])
  const written = await rig.ask(FuseOp.WRITE, node, write, 'xy')
  t.is(written.body.readUInt32LE(0), 2)
  t.is(bytes.toString(), '01234567xy')
  t.is((await rig.ask(FuseOp.LOOKUP, 1, 'nothing\0')).errno, Errno.ENOENT)
})

test('that a disk has no blocks the kernel does not remember: tar -S would pass over what is written next', async (t) => {
  let allocatedBytes = 0
  const disk: FileNode = {
    ...memoryFile(Buffer.alloc(1)),
    facts: async () => facts({ sizeBytes: 8192, allocatedBytes }),
  }
  const rig = new Rig(tree(disk))
  await rig.start()
  const valid = async (): Promise<number[]> => {
    const { body } = await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')
    const attr = await rig.ask(FuseOp.GETATTR, body.readUInt32LE(0), Buffer.alloc(16))
    return [body.readUInt32LE(16), body.readUInt32LE(24), attr.body.readUInt32LE(0)]
  }
  t.deepEqual(await valid(), [1, 0, 0])
  allocatedBytes = 512
  t.deepEqual(await valid(), [1, 1, 1])
})

test('a request gets one answer whatever becomes of it, and its memory is given back once', async (t) => {
  const boom = (): never => {
    throw new Error('a mistake of ours')
  }
  const file: FileNode = { ...memoryFile(Buffer.alloc(1)), open: async () => boom(), facts: boom }
  const rig = new Rig(tree(file))
  await rig.start()
  t.is((await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')).errno, Errno.EIO)
  t.is((await rig.ask(FuseOp.LOOKUP, 77, 'disk.raw\0')).errno, Errno.ENOENT)
  t.is((await rig.ask(FuseOp.READ, 1, READ(9, 0, 10))).errno, Errno.EBADF)
  t.is((await rig.ask(9999, 1)).errno, Errno.ENOSYS)
  const asked = rig.answers.length
  t.is(rig.released, asked)
  t.is(rig.session.unanswered, 0)
})

test('frames no kernel sends cost their request and nothing else', async (t) => {
  const rig = new Rig(tree(memoryFile(Buffer.alloc(16))))
  await rig.start()
  rig.send(Buffer.alloc(10))
  rig.send(Buffer.concat([request(FuseOp.GETATTR, 1, 1n, Buffer.alloc(16)), Buffer.alloc(3)]))
  t.is(rig.answers.length, 1, 'without a head there is nobody to answer')
  for (const opcode of Object.values(FuseOp)) {
    if (opcode === FuseOp.FORGET || opcode === FuseOp.BATCH_FORGET) continue
    if (opcode === FuseOp.INTERRUPT || opcode === FuseOp.DESTROY || opcode === FuseOp.INIT) continue
    for (const length of [0, 1, 7]) {
      await t.notThrowsAsync(rig.ask(opcode, 1, Buffer.alloc(length, 0xff)), `${opcode} ${length}`)
    }
  }
  const count = numbers([4, 0xffffffff], [4, 0])
  rig.send(request(FuseOp.BATCH_FORGET, 1, 5n, count))
  t.false(
    rig.answers.some(({ unique }) => unique === 5n),
    'it wants no answer',
  )
  t.is((await rig.ask(FuseOp.GETATTR, 1, Buffer.alloc(16))).errno, 0)
  const long = numbers([8, 1], [8, 0], [4, 500], [4, 0], [8, 0], [4, 0], [4, 0])
  t.is((await rig.ask(FuseOp.WRITE, 1, long, 'short')).errno, Errno.EINVAL)
  t.is(rig.session.unanswered, 0)
})

test('what the cluster refuses has its errno', async (t) => {
  const refusing = (code: Code): FileNode => ({
    ...memoryFile(Buffer.alloc(1)),
    open: () => Promise.reject(new SheepError(code)),
  })
  for (const [code, errno] of [
    [Code.VDI_LOCKED, Errno.EBUSY],
    [Code.NO_VDI, Errno.ENOENT],
    [Code.NO_SPACE, Errno.ENOSPC],
    [Code.NETWORK_ERROR, Errno.EIO],
  ] as const) {
    const rig = new Rig(tree(refusing(code)))
    await rig.start()
    const node = (await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')).body.readUInt32LE(0)
    t.is((await rig.ask(FuseOp.OPEN, node, numbers([4, 0], [4, 0]))).errno, errno)
  }
})

test('through a mount that is read-only nothing is changed', async (t) => {
  const bytes = Buffer.from('0123456789')
  const rig = new Rig(tree(memoryFile(bytes)), true)
  await rig.start()
  const node = (await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')).body.readUInt32LE(0)
  t.is((await rig.ask(FuseOp.OPEN, node, numbers([4, 2], [4, 0]))).errno, Errno.EROFS)
  t.is((await rig.ask(FuseOp.MKDIR, 1, numbers([4, 0], [4, 0]), 'x\0')).errno, Errno.EROFS)
  t.is((await rig.ask(FuseOp.UNLINK, 1, 'disk.raw\0')).errno, Errno.EROFS)
  t.is(bytes.toString(), '0123456789')
})

test('owners and modes are those of the mount: nobody is told that they were changed', async (t) => {
  const rig = new Rig(tree(memoryFile(Buffer.alloc(1))))
  await rig.start()
  const node = (await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')).body.readUInt32LE(0)
  const set = async (valid: number, mode: number, uid: number, gid: number): Promise<number> => {
    const body = Buffer.alloc(88)
    for (const [value, at] of [
      [valid, 0],
      [mode, 68],
      [uid, 76],
      [gid, 80],
    ] as const) {
      body.writeUInt32LE(value, at)
    }
    return (await rig.ask(FuseOp.SETATTR, node, body)).errno
  }
  const [MODE, UID, GID] = [1, 2, 4]
  t.is(await set(MODE | UID | GID, 0o100644, 1000, 100), 0)
  t.is(await set(MODE, 0o100600, 0, 0), Errno.EPERM)
  t.is(await set(UID, 0, 0, 100), Errno.EPERM)
  t.is(await set(GID, 0, 1000, 0), Errno.EPERM)
  t.is((await rig.ask(FuseOp.SYMLINK, 1, 'link\0target\0')).errno, Errno.EPERM)
})

test('a long directory comes in pages, each name once', async (t) => {
  const names = Array.from({ length: 1000 }, (_, i) => `name-${i}`)
  const root: Directory = {
    ...fixedDirectory(new Map(), 0),
    list: async () => names.map((name) => ({ name, isDirectory: false })),
  }
  const rig = new Rig(root)
  await rig.start()
  const handle = (await rig.ask(FuseOp.OPENDIR, 1, numbers([4, 0], [4, 0]))).body.readUInt32LE(0)
  const found: string[] = []
  for (let offset = 0; ; ) {
    const { body } = await rig.ask(FuseOp.READDIR, 1, READ(handle, offset, 4096))
    if (body.length === 0) break
    for (let at = 0; at < body.length; ) {
      offset = body.readUInt32LE(at + 8)
      const length = body.readUInt32LE(at + 16)
      found.push(body.toString('utf8', at + 24, at + 24 + length))
      at += Math.ceil((24 + length) / 8) * 8
    }
  }
  t.deepEqual(found, ['.', '..', ...names])
})

test('with the names come attributes that are known already; each counts as a look-up', async (t) => {
  const made: string[] = []
  const folder = (name: string) => (): TreeNode => {
    made.push(name)
    return fixedDirectory(new Map(), 1_700_000_000_000)
  }
  const broken: TreeNode = {
    ...fixedDirectory(new Map(), 0),
    facts: () => Promise.reject(new SheepError(Code.EIO)),
  }
  const root: Directory = {
    ...fixedDirectory(new Map(), 0),
    list: async () => [
      { name: 'Alice', isDirectory: true, node: folder('Alice') },
      { name: 'costly', isDirectory: false },
      { name: 'gone', isDirectory: true, node: () => undefined },
      { name: 'broken', isDirectory: true, node: () => broken },
      { name: 'Bob', isDirectory: true, node: folder('Bob') },
    ],
  }
  const rig = new Rig(root)
  await rig.start()
  t.is(rig.answers[0]!.body.readUInt32LE(12) & 0x6000, 0x6000, 'READDIRPLUS, where it pays')
  const handle = (await rig.ask(FuseOp.OPENDIR, 1, numbers([4, 0], [4, 0]))).body.readUInt32LE(0)
  const found: [name: string, node: number][] = []
  for (let offset = 0; ; ) {
    // Three names a page.
    const { body } = await rig.ask(FuseOp.READDIRPLUS, 1, READ(handle, offset, 512))
    if (body.length === 0) break
    for (let at = 0; at < body.length; ) {
      const length = body.readUInt32LE(at + 128 + 16)
      const name = body.toString('utf8', at + 152, at + 152 + length)
      if (name === 'Alice') t.is(body.readUInt32LE(at + 40 + 32), 1_700_000_000, 'mtime')
      offset = body.readUInt32LE(at + 128 + 8)
      found.push([name, body.readUInt32LE(at)])
      at += 128 + Math.ceil((24 + length) / 8) * 8
    }
  }
  const names = ['.', '..', 'Alice', 'costly', 'gone', 'broken', 'Bob']
  t.deepEqual(
    found.map(([name]) => name),
    names,
  )
  const known = found.filter(([, node]) => node !== 0)
  t.deepEqual(
    known.map(([name]) => name),
    ['Alice', 'Bob'],
  )
  t.deepEqual(made, ['Alice', 'Bob'], 'what did not fit was not counted')
  for (const [, node] of known) {
    t.is((await rig.ask(FuseOp.GETATTR, node, Buffer.alloc(16))).errno, 0)
    rig.send(request(FuseOp.FORGET, node, 1n, numbers([8, 1])))
    t.is((await rig.ask(FuseOp.GETATTR, node, Buffer.alloc(16))).errno, Errno.ENOENT)
  }
})

test('the memory of a write is not given back before it has ended', async (t) => {
  let finish: ((errno: number, written: number) => void) | undefined
  const slow = memoryFile(Buffer.alloc(4), {
    write: (_offset, _data, done) => {
      finish = done
    },
  })
  const rig = new Rig(tree(slow))
  await rig.start()
  const { node, handle } = await openDisk(rig)
  const before = rig.released
  const write = numbers([8, handle], [8, 0], [4, 2], [4, 0], [8, 0], [4, 0], [4, 0])
  rig.send(request(FuseOp.WRITE, node, 7n, Buffer.concat([write, Buffer.from('ab')])))
  t.is(rig.released, before)
  t.is(rig.session.unanswered, 1)
  finish?.(0, 2)
  t.is(rig.released, before + 1)
  t.is(rig.answers.at(-1)?.unique, 7n)
})

test('who gets a signal while no sheep answers need not wait; what came too late is given back', async (t) => {
  let finish: (() => void) | undefined
  const later = new Promise<void>((resolve) => {
    finish = resolve
  })
  let closed = 0
  const slow = memoryFile(Buffer.alloc(4))
  const open = async (): Promise<OpenFile> => {
    await later
    return { ...(await slow.open({ writes: true })), close: async () => void closed++ }
  }
  const rig = new Rig(tree({ ...slow, open }))
  await rig.start()
  const node = (await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')).body.readUInt32LE(0)
  const opening = await rig.begin(FuseOp.OPEN, node, numbers([4, 2], [4, 0]))
  t.deepEqual(rig.errnosOf(opening), [])
  await rig.interrupt(opening)
  t.deepEqual(rig.errnosOf(opening), [Errno.EINTR])
  finish?.()
  await turns()
  t.deepEqual(rig.errnosOf(opening), [Errno.EINTR], 'one answer')
  t.is(closed, 1, 'and nothing stays open, or locked')
  t.is(rig.session.unanswered, 0)
})

test('a look-up that was given up counts for nothing', async (t) => {
  let finish: (() => void) | undefined
  const file = memoryFile(Buffer.alloc(4))
  let isSlow = true
  const slow: FileNode = {
    ...file,
    facts: async () => {
      if (isSlow) {
        await new Promise<void>((resolve) => {
          finish = resolve
        })
      }
      return file.facts()
    },
  }
  const rig = new Rig(tree(slow))
  await rig.start()
  const looking = await rig.begin(FuseOp.LOOKUP, 1, 'disk.raw\0')
  await rig.interrupt(looking)
  isSlow = false
  finish?.()
  await turns()
  t.deepEqual(rig.errnosOf(looking), [Errno.EINTR])
  const node = (await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')).body.readUInt32LE(0)
  rig.send(request(FuseOp.FORGET, node, 3n, numbers([8, 1])))
  t.is((await rig.ask(FuseOp.GETATTR, node, Buffer.alloc(16))).errno, Errno.ENOENT)
})

test('a signal is no reason to say that a write was not done', async (t) => {
  let finish: ((errno: number, written: number) => void) | undefined
  const slow = memoryFile(Buffer.alloc(4), {
    write: (_offset, _data, done) => {
      finish = done
    },
  })
  const rig = new Rig(tree(slow))
  await rig.start()
  const { node, handle } = await openDisk(rig)
  const write = numbers([8, handle], [8, 0], [4, 2], [4, 0], [8, 0], [4, 0], [4, 0])
  const writing = await rig.begin(FuseOp.WRITE, node, write, 'ab')
  await rig.interrupt(writing)
  t.deepEqual(rig.errnosOf(writing), [])
  finish?.(0, 2)
  t.deepEqual(rig.errnosOf(writing), [0])
})

test('what is renamed keeps its number, and its old name is free for something else', async (t) => {
  const children = new Map<string, TreeNode>([
    ['before', tree(memoryFile(Buffer.from('old')))],
    ['other', tree(memoryFile(Buffer.from('other')))],
  ])
  const root: Directory = {
    ...fixedDirectory(new Map(), 0),
    child: async (name) => children.get(name),
    rename: async (name, newName, mayReplace) => {
      if (children.has(newName) && !mayReplace) throw new SheepError(Code.VDI_EXIST)
      children.set(newName, children.get(name)!)
      children.delete(name)
    },
  }
  const rig = new Rig(root)
  await rig.start()
  const numberOf = async (parent: number, name: string): Promise<number> =>
    (await rig.ask(FuseOp.LOOKUP, parent, `${name}\0`)).body.readUInt32LE(0)
  const before = await numberOf(1, 'before')
  const disk = await numberOf(before, 'disk.raw')
  const names = 'before\0after\0'
  t.is((await rig.ask(FuseOp.RENAME2, 1, numbers([8, 1], [4, 2], [4, 0]), names)).errno, 22)
  const kept = numbers([8, 1], [4, 1], [4, 0])
  t.is((await rig.ask(FuseOp.RENAME2, 1, kept, 'before\0other\0')).errno, Errno.EEXIST)
  t.is((await rig.ask(FuseOp.RENAME, 1, numbers([8, 9]), names)).errno, Errno.EPERM, 'elsewhere')
  t.is((await rig.ask(FuseOp.RENAME2, 1, kept, names)).errno, 0)
  children.set('before', tree(memoryFile(Buffer.from('new'))))
  t.is(await numberOf(1, 'after'), before)
  t.is(await numberOf(before, 'disk.raw'), disk)
  const fresh = await numberOf(1, 'before')
  t.not(fresh, before)
  t.not(await numberOf(fresh, 'disk.raw'), disk)
})

test('another file of the same name gets another number', async (t) => {
  let identity = 1
  const root: Directory = {
    ...fixedDirectory(new Map(), 0),
    child: async () => ({ ...memoryFile(Buffer.alloc(1)), identity }),
  }
  const rig = new Rig(root)
  await rig.start()
  const numberOf = async (): Promise<number> =>
    (await rig.ask(FuseOp.LOOKUP, 1, 'disk.raw\0')).body.readUInt32LE(0)
  const first = await numberOf()
  t.is(await numberOf(), first)
  identity = 2
  t.not(await numberOf(), first)
})
