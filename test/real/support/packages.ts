/**
 * The real clients the tests drive, and the Debian packages they come in. As root on Debian what is
 * missing gets installed; in CI (CI=true) a missing one is a failure; elsewhere it is a skip with its reason.
 */
import { accessSync, constants, existsSync, readdirSync } from 'node:fs'
import { CommandFailed, run, tryRun } from './run.js'

const INSTALL_MS = 600_000

/** Command, or path of a file -> Debian package. */
const CLIENTS = {
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  nbdkit: 'nbdkit',
  fio: 'fio',
  fusermount3: 'fuse3',
  'mount.fuse3': 'fuse3',
  nbdfuse: 'libnbd-bin',
  bindfs: 'bindfs',
  rsync: 'rsync',
  losetup: 'mount',
  mke2fs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  debugfs: 'e2fsprogs',
  'mkfs.xfs': 'xfsprogs',
  'mkfs.btrfs': 'btrfs-progs',
  'mkfs.vfat': 'dosfstools',
  'mkfs.exfat': 'exfatprogs',
  mkntfs: 'ntfs-3g',
  genisoimage: 'genisoimage',
  mkswap: 'util-linux',
  blkid: 'util-linux',
  cryptsetup: 'cryptsetup-bin',
  sfdisk: 'fdisk',
  depmod: 'kmod',
  modprobe: 'kmod',
  'qemu-system-x86_64': 'qemu-system-x86',
  corosync: 'corosync',
  'corosync-cmapctl': 'corosync',
  ip: 'iproute2',
  java: 'default-jre-headless',
  // The one command in the path of the package with the server's jars.
  zooinspector: 'zookeeper',
  bridge: 'iproute2',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  setpriv: 'util-linux',
  fallocate: 'util-linux',
  fsfreeze: 'util-linux',
  pgrep: 'procps',
  mount: 'mount',
  openssl: 'openssl',
  'gnutls-cli': 'gnutls-bin',
  python3: 'python3-minimal',
  'systemd-analyze': 'systemd',
  'systemd-notify': 'systemd',
  'systemd-nspawn': 'systemd-container',
  'systemd-socket-activate': 'systemd',
  'nbd-client': 'nbd-client',
  bash: 'bash',
  zsh: 'zsh',
  fish: 'fish',
  mandoc: 'mandoc',
  groff: 'groff-base',
  fstrim: 'util-linux',
  tgtd: 'tgt',
  tgtadm: 'tgt',
  'iscsi-inq': 'libiscsi-bin',
  'iscsi-ls': 'libiscsi-bin',
  'iscsi-perf': 'libiscsi-bin',
  'iscsi-test-cu': 'libiscsi-bin',
  iscsid: 'open-iscsi',
  iscsiadm: 'open-iscsi',
  dmsetup: 'dmsetup',
  sg_rtpg: 'sg3-utils',
  sg_persist: 'sg3-utils',
  sg_compare_and_write: 'sg3-utils',
  '/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so': 'qemu-block-extra',
  '/usr/include/corosync/cpg.h': 'libcpg-dev',
  '/usr/include/corosync/quorum.h': 'libquorum-dev',
  '/usr/include/corosync/cfg.h': 'libcfg-dev',
} as const

/** What only building a client of our own takes: QEMU 5.2 (qemu52.ts). */
const BUILDERS = {
  'dpkg-source': 'dpkg-dev',
  xz: 'xz-utils',
  gcc: 'gcc',
  make: 'make',
  meson: 'meson',
  ninja: 'ninja-build',
  'pkg-config': 'pkg-config',
  '/usr/include/glib-2.0/glib.h': 'libglib2.0-dev',
  '/usr/include/pixman-1/pixman.h': 'libpixman-1-dev',
  '/usr/include/zlib.h': 'zlib1g-dev',
  '/usr/include/libaio.h': 'libaio-dev',
  // Firmware, which Debian's source package does not hold: any newer one does.
  '/usr/share/seabios/bios-256k.bin': 'seabios',
  '/usr/share/qemu/linuxboot_dma.bin': 'qemu-system-data',
} as const

const PACKAGE_OF = { ...CLIENTS, ...BUILDERS } as const

export type Tool = keyof typeof PACKAGE_OF

/** What the tests drive; `BUILD_TOOLS` are asked for only where something must be built. */
export const ALL_TOOLS = Object.keys(CLIENTS) as Tool[]
export const BUILD_TOOLS = Object.keys(BUILDERS) as Tool[]

/** Full path of a command, or of a file given by its path; undefined when it is not there. */
export function which(command: string): string | undefined {
  if (command.startsWith('/')) return existsSync(command) ? command : undefined
  const directories = `${process.env.PATH ?? ''}:/usr/bin:/bin:/usr/sbin:/sbin`.split(':')
  return directories.map((directory) => `${directory}/${command}`).find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

export function missingOf(tools: readonly Tool[]): Tool[] {
  return tools.filter((tool) => which(tool) === undefined)
}

/**
 * Makes the tools available when that is possible here. Returns undefined when all are there, else the
 * sentence that says what is missing and why it stays so.
 */
export async function ensureTools(
  tools: readonly Tool[],
  say: (line: string) => void,
): Promise<string | undefined> {
  const missing = missingOf(tools)
  if (missing.length === 0) return undefined
  const packages = [...new Set(missing.map((tool) => PACKAGE_OF[tool]))]
  const remedy = `missing ${missing.join(', ')}; on Debian: apt-get install ${packages.join(' ')}`
  if (which('apt-get') === undefined) return remedy
  if (process.getuid?.() !== 0) return `not root, ${remedy}`
  say(`Installing Debian packages: ${packages.join(' ')}`)
  try {
    await aptInstall(packages)
  } catch (error) {
    return `${remedy} (tried: ${error instanceof Error ? error.message : String(error)})`
  }
  const still = missingOf(tools)
  return still.length === 0 ? undefined : `installed, but still missing ${still.join(', ')}`
}

const APT_ENV = { DEBIAN_FRONTEND: 'noninteractive' }
const APT = ['apt-get', '-q', '-o', 'DPkg::Lock::Timeout=300']

/** Fresh containers have no package lists, and old lists name packages that are gone. */
async function aptInstall(packages: readonly string[]): Promise<void> {
  const install = [...APT, 'install', '-y', '--no-install-recommends', ...packages]
  if (!haveAptLists()) await aptUpdate()
  const first = await tryRun(install, { env: APT_ENV, timeoutMs: INSTALL_MS })
  if (first.code === 0) return
  await aptUpdate()
  await run(install, { env: APT_ENV, timeoutMs: INSTALL_MS })
}

export async function aptUpdate(): Promise<void> {
  await run([...APT, 'update'], { env: APT_ENV, timeoutMs: INSTALL_MS })
}

export function haveAptLists(): boolean {
  const lists = '/var/lib/apt/lists'
  return existsSync(lists) && readdirSync(lists).some((name) => name.includes('_Packages'))
}

/** Downloads .deb files into `directory` without installing them; needs no root. */
export async function aptDownload(packages: readonly string[], directory: string): Promise<void> {
  try {
    await run(['apt-get', '-q', 'download', ...packages], {
      cwd: directory,
      timeoutMs: INSTALL_MS,
    })
  } catch (error) {
    if (!(error instanceof CommandFailed) || process.getuid?.() !== 0) throw error
    await aptUpdate()
    await run(['apt-get', '-q', 'download', ...packages], {
      cwd: directory,
      timeoutMs: INSTALL_MS,
    })
  }
}
