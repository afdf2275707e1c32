/**
 * A guest that stays and does what a test tells it, one shell script after the other: Debian's kernel with its own
 * block devices, this machine's programs, and this machine's loopback as its only network (at `LAB_HOST`).
 *
 * Scripts go in and results come out over a virtio port, one line each, so nothing is guessed from a console and
 * nobody waits by the clock. The root file system is an ext4 image made anew for each guest; what the guest writes to
 * it is thrown away.
 */

import { copyFile, cp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createConnection, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { fillGuestRoot, type GuestParts, guestParts } from './guest.js'
import { type Owner, scratch } from './owner.js'
import { which } from './packages.js'
import { PROJECT } from './paths.js'
import { type Running, run, start, until } from './run.js'

/** The host's loopback as the guest sees it. */
export const LAB_HOST = '10.0.2.2'
const MEMORY_MIB = 640
const IMAGE_MIB = 384
const BOOT_MS = 120_000
const SCRIPT_MS = 240_000
/** What of a script's output comes back. */
const OUTPUT_BYTES = 64 * 1024
const CONSOLE_TAIL = 4000
/** What serving the port takes. */
const BASE = ['bash', 'flock'] as const
/** This project as the guest has it; never where the host has it, which may be below a mount point. */
const GUEST_PROJECT = '/sheepdog'
export const LAB_DOG = `node ${GUEST_PROJECT}/build/bin/dog.js`
/**
 * Several runs of `dog`, one after the other, in one process, because an emulated machine takes seconds to start Node.
 * Lines on standard input: `STATUS words` is a run and the status it must end with, `! command` one of the shell.
 */
export const LAB_DOGS = `node ${GUEST_PROJECT}/dogs.mjs`

const DOGS = `
import { execSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
const exit = process.exit
for (const [index, line] of readFileSync(0, 'utf8').trim().split('\\n').entries()) {
  const [expected, ...words] = line.trim().split(' ')
  if (expected === '!') {
    execSync('set -e; ' + words.join(' '), { stdio: ['ignore', 'inherit', 'inherit'], shell: '/usr/bin/bash' })
    continue
  }
  process.argv = [process.argv[0], '${GUEST_PROJECT}/build/bin/dog.js', ...words]
  const status = await new Promise((resolve) => {
    process.exit = resolve
    // Another name makes it another module; what it imports is loaded once.
    void import('${GUEST_PROJECT}/build/bin/dog.js?' + index)
  })
  if (status === Number(expected)) continue
  console.error('status ' + status + ' of dog ' + words.join(' '))
  exit(1)
}
exit(0)
`

/** Loads what the image brings, then serves the port until the machine goes. Each script is a process of its own. */
const INIT = `#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
alias b=/bin/busybox
b mount -o remount,rw /
for m in $(b cat /modules/order); do
  case $m in nbd.ko*) b insmod /modules/$m nbds_max=8;; *) b insmod /modules/$m;; esac
done
b mount -t tmpfs tmpfs /run
b ip link set lo up
b ip link set eth0 up && b ip addr add 10.0.2.15/24 dev eth0 && b ip route add default via ${LAB_HOST}
for p in /sys/class/virtio-ports/vport*; do port=/dev/\${p##*/}; done
exec 3<>$port </dev/null
echo "up $(b uname -r)" >&3
while read -r id script <&3; do
  {
    echo "$script" | b base64 -d > /run/script.$id
    bash /run/script.$id > /run/output.$id 2>&1 3>&-
    status=$?
    flock /run /bin/busybox printf '%s %s %s\\n' $id $status "$(b tail -c ${OUTPUT_BYTES} /run/output.$id | b base64 -w 0)" >&3
    b rm -f /run/script.$id /run/output.$id
  } &
done
`

interface Waiting {
  readonly settle: (line: string) => void
  readonly fail: (error: Error) => void
}

export interface LabResult {
  readonly status: number
  /** Both streams, in the order they were written. */
  readonly output: string
}

export class LabGuest {
  readonly #port: Socket
  readonly #qemu: Running
  readonly #console: string
  readonly #waiting = new Map<string, Waiting>()
  #next = 1

  constructor(port: Socket, qemu: Running, console: string) {
    this.#port = port
    this.#qemu = qemu
    this.#console = console
    createInterface({ input: port }).on('line', (line) => this.#received(line))
    void qemu.done.then(() => this.#over('the guest has ended'))
  }

  /** Runs a bash script to its end, which must be status 0. Several may run at once. */
  async sh(script: string, timeoutMs = SCRIPT_MS): Promise<string> {
    const { status, output } = await this.trySh(`set -e\n${script}`, timeoutMs)
    if (status === 0) return output
    throw new Error(`status ${status} of\n${script}\n${output}\n${await this.consoleTail()}`)
  }

  /** The same, whatever its status. */
  async trySh(script: string, timeoutMs = SCRIPT_MS): Promise<LabResult> {
    const id = String(this.#next++)
    const answer = await new Promise<string>((resolve, reject) => {
      const late = async (): Promise<void> => {
        reject(new Error(`not done in ${timeoutMs} ms:\n${script}\n${await this.consoleTail()}`))
      }
      const timer = setTimeout(() => void late(), timeoutMs)
      const done = (act: () => void): void => {
        clearTimeout(timer)
        act()
      }
      this.#waiting.set(id, {
        settle: (line) => done(() => resolve(line)),
        fail: (error) => done(() => reject(error)),
      })
      this.#port.write(`${id} ${Buffer.from(script).toString('base64')}\n`)
    })
    const [status, output = ''] = answer.split(' ')
    return { status: Number(status), output: Buffer.from(output, 'base64').toString() }
  }

  async consoleTail(): Promise<string> {
    const text = await readFile(this.#console).catch(() => Buffer.alloc(0))
    return `--- console\n${text.toString().replaceAll('\r', '').slice(-CONSOLE_TAIL)}`
  }

  async end(): Promise<void> {
    this.#qemu.kill('SIGKILL')
    await this.#qemu.done
    this.#port.destroy()
  }

  #received(line: string): void {
    const [id = ''] = line.split(' ', 1)
    this.#waiting.get(id)?.settle(line.slice(id.length + 1))
    this.#waiting.delete(id)
  }

  #over(why: string): void {
    for (const one of this.#waiting.values()) one.fail(new Error(why))
    this.#waiting.clear()
  }
}

export interface LabPlan {
  /** Programs of this machine the guest shall have, beside bash, node and busybox. */
  readonly programs: readonly string[]
}

/** Boots, and ends with the test. */
export async function startLabGuest(t: Owner, plan: LabPlan): Promise<LabGuest> {
  const parts = await guestParts((line) => t.log(line))
  const directory = await scratch(t)
  await makeImage(directory, parts, plan)
  const qemu = start(qemuCommand(directory, parts))
  const port = await openPort(`${directory}/port`, qemu)
  const guest = new LabGuest(port, qemu, `${directory}/console`)
  t.teardown(async () => {
    if (!t.passed) t.log(await guest.consoleTail())
    await guest.end()
  })
  await guest.sh('true', BOOT_MS)
  return guest
}

async function openPort(path: string, qemu: Running): Promise<Socket> {
  const socket = await until('the port of the guest', BOOT_MS, async () => {
    if (qemu.ended()) throw new Error(`qemu: ${(await qemu.done).stderr}`)
    return new Promise<Socket | undefined>((resolve) => {
      const attempt = createConnection({ path })
      attempt.once('connect', () => resolve(attempt))
      attempt.once('error', () => resolve(undefined))
    })
  })
  socket.on('error', () => undefined)
  return socket
}

async function makeImage(
  directory: string,
  parts: GuestParts,
  { programs }: LabPlan,
): Promise<void> {
  const root = `${directory}/root`
  await mkdir(root)
  await fillGuestRoot(root, parts, INIT)
  for (const name of ['etc', 'mnt', 'run', 'usr/bin', 'usr/sbin', 'lib64']) {
    await mkdir(`${root}/${name}`, { recursive: true })
  }
  await cp(parts.modules, `${root}/modules`, { recursive: true })
  await symlink('/proc/self/mounts', `${root}/etc/mtab`)
  const { stdout } = await run([parts.busybox, '--list'])
  // Real programs come first in the path; of those that are both, only the real one is there.
  const taken = new Set<string>([...BASE, 'node', ...programs])
  for (const name of stdout.split('\n')) {
    if (name === '' || name === 'busybox' || taken.has(name)) continue
    await symlink('busybox', `${root}/bin/${name}`)
  }
  for (const name of [...BASE, ...programs]) {
    const path = which(name)
    if (path === undefined) throw new Error(`${name} is not here`)
    await putProgram(root, path, `/usr/bin/${name}`)
  }
  await putProgram(root, process.execPath, '/usr/bin/node')
  await putProject(`${root}${GUEST_PROJECT}`)
  await run(['mke2fs', '-q', '-t', 'ext4', '-d', root, `${directory}/image`, `${IMAGE_MIB}M`])
  await rm(root, { recursive: true })
}

/** With the libraries it is linked against, where the host has them. */
async function putProgram(root: string, file: string, as: string): Promise<void> {
  await copyFile(file, `${root}${as}`)
  const { stdout } = await run(['ldd', file])
  for (const [, library] of stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(/gm)) {
    await mkdir(`${root}${dirname(library!)}`, { recursive: true })
    await copyFile(library!, `${root}${library}`)
  }
}

/** The built project and the packages it runs with. */
async function putProject(into: string): Promise<void> {
  await mkdir(`${into}/build`, { recursive: true })
  for (const name of ['build/bin', 'build/native', 'package.json']) {
    await cp(`${PROJECT}${name}`, `${into}/${name}`, { recursive: true })
  }
  await writeFile(`${into}/dogs.mjs`, DOGS)
  const manifest: Manifest = JSON.parse(await readFile(`${PROJECT}package.json`, 'utf8'))
  const wanted = Object.keys(manifest.dependencies ?? {})
  const done = new Set<string>()
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    if (done.has(name)) continue
    done.add(name)
    const from = `${PROJECT}node_modules/${name}`
    await cp(from, `${into}/node_modules/${name}`, { recursive: true })
    const one: Manifest = JSON.parse(await readFile(`${from}/package.json`, 'utf8'))
    wanted.push(...Object.keys(one.dependencies ?? {}))
  }
}

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>
}

function qemuCommand(directory: string, parts: GuestParts): string[] {
  const append =
    'console=ttyS0 loglevel=4 panic=-1 random.trust_cpu=on nokaslr mitigations=off no_timer_check'
  return [
    ...['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', `${MEMORY_MIB}`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-serial', `file:${directory}/console`],
    ...['-kernel', parts.kernel, '-initrd', parts.initrd, '-append', append],
    ...['-drive', `if=none,id=root,format=raw,snapshot=on,file=${directory}/image`],
    ...['-device', 'virtio-blk-pci,drive=root'],
    ...['-netdev', 'user,id=net,ipv6=off', '-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-device', 'virtio-serial-pci'],
    ...['-chardev', `socket,id=port,path=${directory}/port,server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=port,name=test'],
  ]
}
