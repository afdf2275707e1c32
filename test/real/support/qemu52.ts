/**
 * QEMU 5.2, the last one with the sheepdog driver: built from Debian 11's source package with that driver and
 * little else, about three minutes of two processors, once. The result is kept in the user's cache directory
 * under a key of everything it was made from. Nothing is installed but the packages the build needs.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { BUILD_TOOLS, ensureTools, which } from './packages.js'
import { type RunOptions, run, tryRun } from './run.js'

const BUILD_MS = 30 * 60_000
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
/** Where Debian 11 is, and where it goes when it is moved out of the way. */
const MIRRORS = ['http://deb.debian.org/debian', 'http://archive.debian.org/debian']
const PROGRAMS = ['qemu-img', 'qemu-io', 'qemu-system-x86_64'] as const

/** The machine of the guest tests, and no other device. */
const DEVICES = 'CONFIG_I440FX=y\nCONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=y\n'
const DEVICES_FILE = 'default-configs/devices/i386-softmmu.mak'

const OFF = [
  ...[
    'attr auth-pam bochs brlapi bzip2 cap-ng capstone cloop crypto-afalg curl curses debug-info dmg',
  ],
  ...[
    'docs fdt gcrypt glusterfs gnutls gtk guest-agent iconv kvm libiscsi libnfs libpmem libdaxctl libssh',
  ],
  ...[
    'libudev libusb libxml2 linux-io-uring lzfse lzo membarrier modules mpath netmap nettle numa opengl',
  ],
  ...[
    'parallels plugins pvrdma qcow1 qed rbd rdma replication sdl seccomp slirp smartcard snappy spice tpm',
  ],
  ...[
    'u2f usb-redir user vde vdi vhost-crypto vhost-net vhost-scsi vhost-user vhost-vdpa vhost-vsock',
  ],
  ...['virglrenderer virtfs virtiofsd vnc vte vvfat werror xen xfsctl xkbcommon zstd'],
].flatMap((line) => line.split(' '))

/** `--python` must not be given together with a meson of the system. */
const CONFIGURE = [
  ...['--meson=/usr/bin/meson', '--with-git-submodules=ignore', '--without-default-devices'],
  ...['--target-list=x86_64-softmmu', '--audio-drv-list=', '--enable-trace-backends=nop'],
  // Compiles in two thirds of the time.
  '--extra-cflags=-O1',
  ...['sheepdog', 'tools', 'tcg', 'linux-aio', 'coroutine-pool'].map((name) => `--enable-${name}`),
  ...OFF.map((name) => `--disable-${name}`),
]

/** A python or gcc of one's own before the system's would not know the system's meson. */
const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }

const RECIPE = [CONFIGURE, DEVICES, process.arch]
const CACHES = process.env.XDG_CACHE_HOME || `${homedir()}/.cache`
const KEY = createHash('sha256').update(JSON.stringify(RECIPE)).digest('hex').slice(0, 12)
const HOME = `${CACHES}/sheepdog-tests/qemu-5.2-${KEY}`

export const QEMU52 = {
  img: `${HOME}/qemu-img`,
  io: `${HOME}/qemu-io`,
  /** The emulator and where its firmware is. */
  system: [`${HOME}/qemu-system-x86_64`, '-L', '/usr/share/seabios', '-L', '/usr/share/qemu'],
} as const

export function haveQemu52(): boolean {
  return PROGRAMS.every((name) => existsSync(`${HOME}/${name}`))
}

/** Builds it unless it is there. The sentence that says why it stays missing, else undefined. */
export async function ensureQemu52(say: (line: string) => void): Promise<string | undefined> {
  if (haveQemu52()) return undefined
  const lack = which('apt-get') === undefined ? 'no apt-get' : await ensureTools(BUILD_TOOLS, say)
  if (lack !== undefined) return `QEMU 5.2 cannot be built: ${lack}`
  say('Building QEMU 5.2 with the sheepdog driver (some minutes, once)')
  await mkdir(CACHES, { recursive: true })
  const work = await mkdtemp(`${CACHES}/sheepdog-tests-qemu-`)
  const began = performance.now()
  try {
    await build(await fetchSource(work), `${work}/build`)
    await keep(`${work}/build`, `${work}/kept`)
    await rm(HOME, { recursive: true, force: true })
    await mkdir(`${CACHES}/sheepdog-tests`, { recursive: true })
    await rename(`${work}/kept`, HOME)
  } catch (error) {
    return `QEMU 5.2 cannot be built: ${error instanceof Error ? error.message : String(error)}`
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  say(`Built QEMU 5.2 in ${Math.round((performance.now() - began) / 1000)} s`)
  return undefined
}

/** Downloads and unpacks Debian 11's source package, with lists of our own: the system's stay as they are. */
async function fetchSource(work: string): Promise<string> {
  const reasons: string[] = []
  for (const mirror of MIRRORS) {
    const apt = `${work}/apt`
    await rm(apt, { recursive: true, force: true })
    await mkdir(`${apt}/lists/partial`, { recursive: true })
    await mkdir(`${apt}/archives/partial`, { recursive: true })
    await writeFile(
      `${apt}/sources.list`,
      `deb-src [signed-by=${KEYRING}] ${mirror} bullseye main\n`,
    )
    const words = [
      ...['apt-get', '-q', '-o', `Dir::Etc::sourcelist=${apt}/sources.list`],
      ...['-o', 'Dir::Etc::sourceparts=/dev/null', '-o', `Dir::State::lists=${apt}/lists`],
      ...['-o', `Dir::Cache=${apt}`, '-o', 'APT::Sandbox::User=root'],
    ]
    const options: RunOptions = { cwd: work, timeoutMs: BUILD_MS }
    const update = await tryRun([...words, 'update'], options)
    const got = await tryRun([...words, 'source', '--download-only', 'qemu'], options)
    const description = (await readdir(work)).find((name) => name.endsWith('.dsc'))
    if (got.code === 0 && description !== undefined) {
      // apt has checked the signed index; the keys of single maintainers are not on every machine.
      const unpack = ['dpkg-source', '-x', '--no-check', description, 'source']
      await run(unpack, options)
      return `${work}/source`
    }
    reasons.push(`${mirror}: ${words.join(' ')}\n${update.stderr}${got.stderr}`)
  }
  throw new Error(`no source package: ${reasons.join('\n')}`)
}

async function build(source: string, into: string): Promise<void> {
  await writeFile(`${source}/${DEVICES_FILE}`, DEVICES)
  await mkdir(into)
  const options: RunOptions = { cwd: into, timeoutMs: BUILD_MS, env: ENVIRONMENT }
  await run([`${source}/configure`, ...CONFIGURE], options)
  await run(['nice', '-n', '10', 'ninja', ...PROGRAMS], options)
}

async function keep(from: string, into: string): Promise<void> {
  await mkdir(into)
  for (const name of PROGRAMS) {
    await copyFile(`${from}/${name}`, `${into}/${name}`)
    await run([`${into}/${name}`, '--version'])
  }
}
