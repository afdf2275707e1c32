/** A quick-start cluster keeps the ports of its first start, and says so when it cannot have them. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import test, { type ExecutionContext } from 'ava'
import { claimPorts } from '../../src/bin/quickstart/ports.js'

async function directory(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(`${tmpdir()}/sheepdog-ports-`)
  t.teardown(() => rm(path, { recursive: true }))
  return path
}

function occupy(t: ExecutionContext, port: number): Promise<boolean> {
  const server = createServer()
  t.teardown(() => void server.close())
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1' }, () => resolve(true))
  })
}

test.serial('a new directory gets free ports in a row and keeps them', async (t) => {
  const path = await directory(t)
  const first = await claimPorts(path, 3)
  t.is(first.sheep.length, 3)
  t.deepEqual(first.sheep, [first.sheep[0], first.sheep[0]! + 1, first.sheep[0]! + 2])
  t.deepEqual(await claimPorts(path, 3), first)
})

test.serial('another directory avoids ports in use', async (t) => {
  const before = await claimPorts(await directory(t), 3)
  await occupy(t, before.sheep[1]!)
  await occupy(t, before.nbd)
  const other = await claimPorts(await directory(t), 3)
  t.false(other.sheep.includes(before.sheep[1]!))
  t.not(other.nbd, before.nbd)
})

test.serial(
  'a remembered port that is taken is an error that names it and the remedy',
  async (t) => {
    const path = await directory(t)
    const { sheep } = await claimPorts(path, 3)
    await occupy(t, sheep[2]!)
    const error = await t.throwsAsync(claimPorts(path, 3))
    t.regex(error?.message ?? '', new RegExp(`port ${sheep[2]} is taken`))
    t.regex(error?.message ?? '', /cluster shutdown/)
  },
)

test.serial('a damaged ports file is an error and stays as it is', async (t) => {
  const path = await directory(t)
  for (const text of ['{', '[]', '{"sheep":[7000,0],"nbd":1}', '{"sheep":["x"],"nbd":10809}']) {
    await writeFile(`${path}/quickstart.json`, text)
    await t.throwsAsync(claimPorts(path, 3), { message: /does not hold the ports/ })
    t.is((await readFile(`${path}/quickstart.json`)).toString(), text)
  }
})
