/** `dog completion`: what the shells make of the scripts. */
import { writeFile } from 'node:fs/promises'
import type { ExecutionContext } from 'ava'
import { scratch } from './support/owner.js'
import { DOG } from './support/paths.js'
import { run } from './support/run.js'
import { needing } from './support/suite.js'

/** Stands for the dog a shell finds: lists two disks and a snapshot where it is asked at port 7001. */
const FAKE = `#!/bin/sh
[ "$*" = 'vdi list --raw -p 7001' ] || exit 1
echo 's Alice 1 0 0 0 0 98998c 3 monday 22'
echo '= Alice 0 0 0 0 0 98998d 3  22'
echo '= Two\\\\ words 0 0 0 0 0 98998e 3  22'
echo 'c Bob 0 0 0 0 0 4d3dda 3  22'
`

/** A directory with the fake and the script; the script's path. */
async function prepared(t: ExecutionContext, shell: string): Promise<string> {
  const directory = await scratch(t)
  await writeFile(`${directory}/dog`, FAKE, { mode: 0o755 })
  const { stdout } = await run([process.execPath, DOG, 'completion', shell])
  await writeFile(`${directory}/script`, stdout)
  return directory
}

/** What is offered for the last of these words; '' stands for a word not begun yet. */
type Offer = (words: readonly string[]) => Promise<string[]>

async function offersAsItShould(t: ExecutionContext, offer: Offer): Promise<void> {
  t.deepEqual(await offer(['dog', 'v']), ['vdi'])
  t.deepEqual(await offer(['dog', 'vdi', 'cr']), ['create'])
  t.deepEqual(await offer(['dog', 'vdi', 'check', '--e']), ['--exist'])
  t.deepEqual(await offer(['dog', 'vdi', 'object', 'loc']), ['location'])
  t.deepEqual(await offer(['dog', 'vdi', 'delete', '-p', '7001', '']), ['Alice', 'Bob'])
  t.deepEqual(await offer(['dog', 'vdi', 'lock', 'unlock', '-p', '7001', 'A']), ['Alice'])
  t.deepEqual(await offer(['dog', 'vdi', 'delete', '-p', '7002', 'A']), [])
}

/** Calls the function as a shell's completion does; zsh's bashcompinit counts words from 0, too. */
function byFunction(shell: readonly string[], directory: string, before: string): Offer {
  return async (words) => {
    const script = `${before}. ${directory}/script; PATH=${directory}:$PATH
      COMP_WORDS=("$@"); COMP_CWORD=${words.length - 1}
      _sheepdog_dog; printf '%s\\n' "\${COMPREPLY[@]}"`
    const { stdout } = await run([...shell, script, 'shell', ...words])
    // bashcompinit leaves it to zsh to look at what has been begun.
    return stdout.split('\n').filter((line) => line !== '' && line.startsWith(words.at(-1)!))
  }
}

needing('bash')('bash completes the words of dog and the names of disks', async (t) => {
  const directory = await prepared(t, 'bash')
  await offersAsItShould(t, byFunction(['bash', '--norc', '-c'], directory, ''))
})

needing('zsh')('zsh completes the words of dog and the names of disks', async (t) => {
  const directory = await prepared(t, 'zsh')
  const before = 'compdef() { :; }; emulate sh; setopt ksharrays;'
  await offersAsItShould(t, byFunction(['zsh', '-f', '-c'], directory, before))
})

needing('fish')('fish completes the words of dog and the names of disks', async (t) => {
  const directory = await prepared(t, 'fish')
  await offersAsItShould(t, async (words) => {
    const script = `source ${directory}/script; set -x PATH ${directory} $PATH; complete -C "${words.join(' ')}"`
    const { stdout } = await run(['fish', '--no-config', '-c', script])
    const offered = stdout.split('\n').map((line) => line.split('\t')[0]!)
    const begun = words.at(-1)!
    return offered.filter((word) => word !== '' && word.startsWith(begun)).sort()
  })
})
