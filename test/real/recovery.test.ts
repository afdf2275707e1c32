/**
 * Recovery as an administrator sees and steers it, on real daemons: held off with `dog cluster recover`, throttled,
 * followed with `dog node recovery`.
 */
import { startCluster } from './support/cluster.js'
import { until } from './support/run.js'
import { needing } from './support/suite.js'

const realTest = needing()

const RECOVERY_MS = 90_000
const HEADER = 'Nodes In Recovery:\n  Id   Host:Port         V-Nodes       Zone       Progress\n'

realTest('recovery is held off, throttled, followed, and let go on', async (t) => {
  t.timeout(240_000)
  const cluster = await startCluster(t, { nodes: 3, copies: 2 })
  const content = Buffer.alloc(64 * 1024 * 1024, 'recovery! ').toString('latin1')
  await cluster.dog('vdi create', 'Alice', '64M')
  await cluster.dogAt(0, 'vdi write', ['Alice'], { input: content })
  t.is((await cluster.dog('node recovery')).stdout, HEADER)
  t.is((await cluster.dog('node recovery', '-r')).stdout, '')

  t.is((await cluster.dog('cluster recover', 'disable')).stdout, 'Cluster recovery: disable\n')
  t.regex((await cluster.dog('cluster info')).stdout, /running, auto-recovery disabled/)
  await cluster.node(2).kill()
  await cluster.members(2)
  const rows = async (): Promise<string[]> =>
    (await cluster.dog('node recovery', '-r')).stdout.split('\n').filter(Boolean)
  await until('both to wait with their lists', RECOVERY_MS, async () => {
    const shown = await rows()
    return shown.length === 2 && shown.every((row) => / 0 [1-9]\d*$/.test(row))
  })
  const { nodes } = JSON.parse((await cluster.dog('node recovery', '--json')).stdout)
  t.is(nodes[0].phase, 'recovering')
  const table = (await cluster.dog('node recovery')).stdout
  t.regex(table, /^ {3}0 {3}127\.0\.0\.1:\d+ +128 +[12] {8}0\.0%$/m)

  // One object a minute: what a client reads comes at once all the same.
  for (const index of [0, 1]) {
    await cluster.dogAt(index, 'node recovery', ['set-throttle', '1', '60000'])
    const told = await cluster.dogAt(index, 'node recovery', ['get-throttle'])
    t.is(told.stderr, 'max (1), interval (60000)\n')
  }
  t.is((await cluster.dog('cluster recover', 'enable')).stdout, 'Cluster recovery: enable\n')
  t.regex((await cluster.dog('cluster info')).stdout, /running, auto-recovery enabled/)
  const read = await cluster.dogAt(1, 'vdi read', ['Alice'])
  t.true(read.stdout === content, 'what is read is not what was written')

  for (const index of [0, 1]) {
    await cluster.dogAt(index, 'node recovery', ['set-throttle', '0', '0'])
  }
  await cluster.dog('node recovery', '-P')
  await until('the end of recovery', RECOVERY_MS, async () => (await rows()).length === 0)
})
