/**
 * A small Linux guest whose root file system is whatever disk it is given: Debian's own kernel and a first
 * file system of busybox and the modules virtio-blk needs. Emulated (TCG), so it runs on any machine; it is up
 * in a few seconds. Nothing is installed: packages are downloaded and unpacked under the cache.
 */
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { type CpioEntry, cpio } from './cpio.js'
import { aptDownload, aptUpdate, haveAptLists } from './packages.js'
import { CACHE } from './paths.js'
import { type RunResult, run, tryRun } from './run.js'

const HOME = `${CACHE}guest`
const FLAVOUR = 'linux-image-cloud-amd64'
/** What the first file system loads, to find the disk it hands over to. */
const MODULES = ['virtio_pci', 'virtio_blk', 'ext4']
/** What a guest that is a host of its own wants besides (lab-guest.ts): kept as files, with a list in order. */
const MORE_MODULES = [
  ...['virtio_net', 'virtio_console', 'crc32c_generic', 'xfs', 'nbd'],
  ...['sd_mod', 'iscsi_tcp', 'dm_multipath', 'dm_service_time'],
]
const BOOT_MS = 180_000
const MEMORY_MIB = 256

export interface GuestParts {
  readonly kernel: string
  readonly initrd: string
  /** Statically linked, for root file systems made by the tests. */
  readonly busybox: string
  /** Directory of further modules: `order` names its files in the order of loading, one a line. */
  readonly modules: string
}

/** Loads modules, mounts the disk and hands over to the disk's own init. */
const FIRST_INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for m in $(/bin/busybox cat /modules); do /bin/busybox insmod $m; done
n=0
while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do /bin/busybox sleep 0.1; n=$((n+1)); done
/bin/busybox mount -t ext4 /dev/vda /root || { echo '@@FAILED mount'; /bin/busybox poweroff -f; }
/bin/busybox mount --move /dev /root/dev
/bin/busybox mount --move /proc /root/proc
/bin/busybox mount --move /sys /root/sys
exec /bin/busybox switch_root /root /sbin/init
`

/** Fetches and prepares what is not in the cache yet. */
export async function guestParts(say: (line: string) => void): Promise<GuestParts> {
  const parts = {
    kernel: `${HOME}/kernel`,
    initrd: `${HOME}/initrd`,
    busybox: `${HOME}/busybox`,
    modules: `${HOME}/modules`,
  }
  if (Object.values(parts).every(existsSync) && (await hasModules(parts.modules))) return parts
  say("Downloading Debian's kernel and busybox for the guest")
  if (!haveAptLists()) await aptUpdate()
  const work = `${CACHE}guest.${process.pid}`
  try {
    await prepare(work)
    await rm(HOME, { recursive: true, force: true })
    await rename(work, HOME)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return parts
}

async function prepare(work: string): Promise<void> {
  await mkdir(`${work}/deb`, { recursive: true })
  await aptDownload([await kernelPackage(), 'busybox-static'], `${work}/deb`)
  const unpacked = `${work}/unpacked`
  for (const name of await readdir(`${work}/deb`)) {
    await run(['dpkg-deb', '-x', `${work}/deb/${name}`, unpacked])
  }
  const [version] = await readdir(`${unpacked}/lib/modules`)
  if (version === undefined) throw new Error('the kernel package holds no modules')
  await run(['depmod', '-b', unpacked, version])
  await copyFile(`${unpacked}/boot/vmlinuz-${version}`, `${work}/kernel`)
  await copyFile(`${unpacked}/bin/busybox`, `${work}/busybox`)
  await chmod(`${work}/busybox`, 0o755)
  await writeFile(`${work}/initrd`, await firstFiles(unpacked, version, `${work}/busybox`))
  await keepModules(unpacked, version, `${work}/modules`)
  await rm(unpacked, { recursive: true })
  await rm(`${work}/deb`, { recursive: true })
}

/** The flavour is an empty package that depends on the kernel of the day. */
async function kernelPackage(): Promise<string> {
  const { stdout } = await run(['apt-cache', 'depends', FLAVOUR])
  const name = /Depends: (linux-image-\S+)/.exec(stdout)?.[1]
  if (name === undefined) throw new Error(`apt knows no ${FLAVOUR}:\n${stdout}`)
  return name
}

async function firstFiles(unpacked: string, version: string, busybox: string): Promise<Buffer> {
  const modules = await moduleFiles(unpacked, version, MODULES)
  const entries: CpioEntry[] = ['bin', 'dev', 'lib', 'proc', 'root', 'sys'].map((name) => ({
    name,
    kind: 'directory',
  }))
  entries.push({ name: 'bin/busybox', kind: 'file', mode: 0o755, data: await readFile(busybox) })
  entries.push({ name: 'init', kind: 'file', mode: 0o755, data: Buffer.from(FIRST_INIT) })
  const names: string[] = []
  for (const module of modules) {
    const name = `lib/${module.slice(module.lastIndexOf('/') + 1)}`
    names.push(`/${name}`)
    entries.push({ name, kind: 'file', mode: 0o644, data: await readFile(module) })
  }
  const list = Buffer.from(`${names.join('\n')}\n`)
  entries.push({ name: 'modules', kind: 'file', mode: 0o644, data: list })
  return cpio(entries)
}

async function keepModules(unpacked: string, version: string, into: string): Promise<void> {
  await mkdir(into)
  const already = new Set(await moduleFiles(unpacked, version, MODULES))
  const files = await moduleFiles(unpacked, version, MORE_MODULES)
  const names: string[] = []
  for (const file of files.filter((one) => !already.has(one))) {
    const name = file.slice(file.lastIndexOf('/') + 1)
    await copyFile(file, `${into}/${name}`)
    names.push(name)
  }
  await writeFile(`${into}/order`, `${names.join('\n')}\n`)
  await writeFile(`${into}/wanted`, MORE_MODULES.join('\n'))
}

/** What an earlier version of these tests has prepared may lack some. */
async function hasModules(directory: string): Promise<boolean> {
  const wanted = await readFile(`${directory}/wanted`, 'utf8').catch(() => '')
  return wanted === MORE_MODULES.join('\n')
}

/** Files to load, in order; what is built into the kernel is not among them. */
async function moduleFiles(
  unpacked: string,
  version: string,
  modules: readonly string[],
): Promise<string[]> {
  const files = new Set<string>()
  for (const module of modules) {
    const ask = ['modprobe', '-d', unpacked, '-S', version, '--show-depends', module]
    const { stdout } = await tryRun(ask)
    for (const match of stdout.matchAll(/^insmod (\S+)/gm)) files.add(match[1]!)
  }
  return [...files]
}

/** What a root file system needs beside the test's own files: busybox under its names, and `init`. */
export async function fillGuestRoot(
  directory: string,
  parts: GuestParts,
  init: string,
): Promise<void> {
  for (const name of ['bin', 'sbin', 'dev', 'proc', 'sys', 'root', 'tmp']) {
    await mkdir(`${directory}/${name}`, { recursive: true })
  }
  await copyFile(parts.busybox, `${directory}/bin/busybox`)
  await chmod(`${directory}/bin/busybox`, 0o755)
  await writeFile(`${directory}/sbin/init`, init, { mode: 0o755 })
}

/** Boots with `disk` (any QEMU file name) as root and waits for power-off. The console is in `stdout`. */
export function bootGuest(parts: GuestParts, disk: string): Promise<RunResult> {
  const drive = `if=none,id=root,format=raw,cache=writeback,discard=unmap,file=${disk}`
  const append =
    'console=ttyS0 loglevel=4 panic=-1 random.trust_cpu=on nokaslr mitigations=off no_timer_check'
  return run(
    [
      ...['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', `${MEMORY_MIB}`],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
      ...['-kernel', parts.kernel, '-initrd', parts.initrd, '-append', append],
      ...['-drive', drive, '-device', 'virtio-blk-pci,drive=root'],
    ],
    { timeoutMs: BOOT_MS },
  )
}
