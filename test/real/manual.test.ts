/** The manual pages, read by mandoc and groff, and where the service's installation puts them. */
import { readdirSync } from 'node:fs'
import { scratch } from './support/owner.js'
import { PROJECT } from './support/paths.js'
import { run } from './support/run.js'
import { needing } from './support/suite.js'

const PAGES = readdirSync(`${PROJECT}man`).map((name) => `${PROJECT}man/${name}`)

needing('mandoc')('mandoc finds nothing to warn of in the manual pages', async (t) => {
  t.true(PAGES.length > 9)
  const { stdout } = await run(['mandoc', '-T', 'lint', '-W', 'warning', ...PAGES])
  t.is(stdout, '')
})

needing('groff')('groff finds nothing to warn of in the manual pages', async (t) => {
  for (const page of PAGES) {
    const { stderr } = await run(['groff', '-ww', '-mdoc', '-Tutf8', '-z', page])
    t.is(stderr, '', page)
  }
})

needing('mandoc')(
  'systemd/install.sh puts the manual pages where man looks for them',
  async (t) => {
    const root = await scratch(t)
    await run(['sh', `${PROJECT}systemd/install.sh`, '--root', root])
    const { stdout } = await run(['mandoc', `${root}/usr/local/share/man/man8/sheep.8`])
    t.true(stdout.includes('Reopen the log'))
    await run(['sh', `${PROJECT}systemd/install.sh`, '--root', root, '--uninstall'])
    const left = await run(['find', `${root}/usr/local`, '-type', 'f'])
    t.is(left.stdout, '')
  },
)
