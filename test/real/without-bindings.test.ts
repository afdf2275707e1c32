/** The package without a C compiler: real daemons without any native binding, and what an installed package holds. */
import { copyFile, mkdir, symlink } from 'node:fs/promises'
import { nbdcopy } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { makeImage, sameFiles } from './support/images.js'
import { scratch } from './support/owner.js'
import { PROJECT } from './support/paths.js'
import { run, tryRun } from './support/run.js'
import { needing } from './support/suite.js'

/** Words before a daemon's command line. */
const HIDDEN = ['env', 'SHEEPDOG_WITHOUT=all']

needing('nbdcopy')(
  'a cluster without bindings keeps replicas and fragments over a death',
  async (t) => {
    const cluster = await startCluster(t, { nodes: 3, place: () => ({ inside: HIDDEN }) })
    await cluster.dog('vdi create', 'Copies', '8M')
    await cluster.dog('vdi create', '-c', '2:1', 'Coded', '8M')
    const [image, back] = [`${cluster.directory}/image`, `${cluster.directory}/back`]
    await makeImage(image, 8, 5)
    for (const name of ['Copies', 'Coded']) await nbdcopy(image, cluster.uri(name))
    const log = await cluster.node(0).logTail()
    t.regex(log, /binding\.absent reason="SHEEPDOG_WITHOUT hides the binding 'posix'" effect=/)
    t.regex(log, /erasure\.binding\.absent/)

    // Nobody else gets the store, with bindings or without.
    const second = await tryRun(cluster.node(1).command().slice(HIDDEN.length))
    t.is(second.code, 1)
    t.regex(second.stderr, /in use|another/)

    await cluster.node(0).kill()
    await nbdcopy(cluster.uri('Copies', 1), back)
    await sameFiles(image, back)
    await nbdcopy(cluster.uri('Coded', 1), back)
    await sameFiles(image, back)
    await cluster.node(0).start()
    await cluster.recovered()
    await nbdcopy(cluster.uri('Coded', 0), back)
    await sameFiles(image, back)
    for (const node of cluster.nodes) t.is((await node.stop())?.code, 0)
  },
)

needing()('what npm packs runs from anywhere, with units and without a compiler', async (t) => {
  const directory = await scratch(t)
  const packed = await run(['npm', 'pack', '--silent', '--pack-destination', directory], {
    cwd: PROJECT,
  })
  await run(['tar', 'xf', `${directory}/${packed.stdout.trim()}`, '-C', directory])
  const top = `${directory}/package`
  const about = JSON.parse((await run(['cat', `${top}/package.json`])).stdout) as {
    readonly bin: Record<string, string>
    readonly dependencies: Record<string, string>
  }
  // As npm would install it: what it says it depends on, and nothing else.
  await mkdir(`${top}/node_modules`)
  for (const name of Object.keys(about.dependencies)) {
    await symlink(`${PROJECT}node_modules/${name}`, `${top}/node_modules/${name}`)
  }
  for (const program of Object.values(about.bin)) {
    t.regex((await run([process.execPath, `${top}/${program}`, '--help'])).stdout, /^Usage:/m)
  }
  const root = `${directory}/root`
  await run(['sh', `${top}/systemd/install.sh`, '--root', root])
  await run([
    'grep',
    '-q',
    `ExecStart=.* ${top}/build/bin/sheep.cjs -f`,
    `${root}/etc/systemd/system/sheep.service`,
  ])

  // A build where there is neither compiler nor apt: says what is missing, and takes away what is not of these sources.
  const bin = `${directory}/bin`
  await mkdir(bin)
  await symlink(process.execPath, `${bin}/node`)
  await copyFile(`${top}/native-bindings/erasure/erasure.c`, `${top}/native-bindings/posix/posix.c`)
  await mkdir(`${top}/node_modules/node-api-headers`)
  await run([
    'cp',
    '-r',
    `${PROJECT}node_modules/node-api-headers/.`,
    `${top}/node_modules/node-api-headers`,
  ])
  const build = `${top}/build/native-bindings/build.js`
  const built = await run(['env', `PATH=${bin}`, 'node', build])
  t.regex(built.stderr, /no C compiler, so without the native bindings posix: everything works but/)
  const left = await tryRun(['ls', `${top}/build/native/posix.node`])
  t.not(left.code, 0)
  t.regex(
    (await run([process.execPath, `${top}/build/bin/sheep.cjs`, '--help'])).stdout,
    /^Usage:/m,
  )
})
