/** The plain store passes the suite on memory, on memory without a page cache, and on a real disk. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLog } from '../../src/base/log.js'
import { openPlainStore, type PlainStore } from '../../src/store/plain-store.js'
import { nodeWorld } from '../../src/world/node/world.js'
import { FakeFiles } from './support/fake-files.js'
import { openFakeStore } from './support/fake-store.js'
import { objectStoreSuite, type StoreUnderTest } from './support/object-store-suite.js'

async function underTest(
  open: () => Promise<PlainStore>,
  dispose: () => Promise<void>,
): Promise<StoreUnderTest> {
  const store = await open()
  return {
    store,
    dispose,
    reopen: async () => {
      await store.close()
      return open()
    },
  }
}

objectStoreSuite('memory', () => {
  const files = new FakeFiles()
  return underTest(
    () => openFakeStore(files),
    async () => undefined,
  )
})

objectStoreSuite('memory, nothing cached, two descriptors', () => {
  const files = new FakeFiles()
  files.cold = true
  return underTest(
    () => openFakeStore(files, { openObjectsMax: 2 }),
    async () => undefined,
  )
})

objectStoreSuite('disk', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'sheep-store-'))
  const { files, clock, random } = nodeWorld()
  return underTest(
    () =>
      openPlainStore({
        files,
        clock,
        random,
        log: silentLog,
        metaDirectory: directory,
        disks: [],
        durable: true,
      }),
    () => rm(directory, { recursive: true }),
  )
})
