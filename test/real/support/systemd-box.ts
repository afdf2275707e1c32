/**
 * A throw-away system with a real systemd as its process 1: systemd-nspawn over this machine's own /usr (read-only), with
 * everything else empty and in memory, and a loopback of its own. Up and down again in two seconds.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { type Owner, scratch } from './owner.js'
import { which } from './packages.js'
import { PROJECT } from './paths.js'
import { tryRun } from './run.js'

/** Where the project and Node are in there. */
export const BOX_PROJECT = '/opt/sheepdog'
export const BOX_NODE = '/opt/node/bin/node'
const LIMIT_MS = 100_000
const PROBE_MS = 20_000
const FUSE = '/dev/fuse'
const BINDS = [
  ...[`--bind-ro=${PROJECT}:${BOX_PROJECT}`, `--bind-ro=${process.execPath}:${BOX_NODE}`],
  ...(existsSync(FUSE) ? [`--bind=${FUSE}`] : []),
]

/** `bash -e` runs it as root, after everything basic is up. */
const JOB_UNIT = `[Unit]
After=basic.target
[Service]
Type=exec
Environment=PATH=/opt/node/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
StandardOutput=file:/out/log
StandardError=inherit
ExecStart=/bin/bash -e /job/script
ExecStopPost=/bin/bash -c 'journalctl -b --no-pager -o short-monotonic > /out/journal'
ExecStopPost=/bin/bash -c 'sync; echo $EXIT_STATUS > /out/status; systemctl --no-block exit'
`

function nspawn(binds: readonly string[], rest: readonly string[]): string[] {
  const name = `sheepdog-${process.pid}-${Math.random().toString(36).slice(2, 8)}`
  const how = ['-q', '--register=no', '--keep-unit', '--private-network', '--volatile=yes']
  return ['systemd-nspawn', ...how, '-M', name, '-D', '/', ...binds, ...rest]
}

/** Why there can be no box here; undefined when there can. */
export function boxRefusal(): string | undefined {
  if (which('systemd-nspawn') === undefined) return 'systemd-nspawn is missing (systemd-container)'
  if (process.getuid?.() !== 0) return 'systemd-nspawn needs root'
  const [command = '', ...args] = nspawn([], ['/bin/true'])
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8', timeout: PROBE_MS })
  return status === 0 ? undefined : `systemd-nspawn does not work here: ${stderr.trim()}`
}

export interface BoxResult {
  /** What the script printed. */
  readonly output: string
  readonly journal: string
}

/** Throws with output and journal when a command of `script` fails. */
export async function inBox(t: Owner, script: string): Promise<BoxResult> {
  const directory = await scratch(t)
  const [job, out] = [`${directory}/job`, `${directory}/out`]
  await mkdir(job)
  await mkdir(out)
  await writeFile(`${job}/script`, script)
  await writeFile(`${directory}/job.service`, JOB_UNIT)
  // Of this machine's packages nothing is wanted that they would enable on a first boot.
  await writeFile(`${directory}/preset`, 'disable *\n')
  await chmod(directory, 0o755)
  const binds = [
    ...BINDS,
    `--bind-ro=${job}:/job`,
    `--bind=${out}:/out`,
    `--bind-ro=${directory}/job.service:/run/systemd/system/job.service`,
    `--bind-ro=${directory}/preset:/etc/systemd/system-preset/00-none.preset`,
  ]
  const boot = ['-b', 'systemd.unit=basic.target', 'systemd.wants=job.service']
  const quiet = ['systemd.firstboot=off', 'systemd.mask=systemd-firstboot.service']
  // Its exit status says nothing about the script.
  const { timedOut } = await tryRun(nspawn(binds, [...boot, ...quiet]), { timeoutMs: LIMIT_MS })
  const read = (name: string): Promise<string> =>
    readFile(`${out}/${name}`, 'utf8').catch(() => '(not written)')
  const result = { output: await read('log'), journal: await read('journal') }
  const status = (await read('status')).trim()
  if (status === '0') return result
  const tail = result.journal.split('\n').slice(-80).join('\n')
  const how = timedOut ? `did not end within ${LIMIT_MS} ms` : `ended with ${status}`
  throw new Error(`the script ${how}:\n${result.output}\n--- journal\n${tail}`)
}
