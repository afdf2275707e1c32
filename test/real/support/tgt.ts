/**
 * Debian's tgt as a client of the sheepdog protocol: iSCSI targets on loopback, each with a control socket of its own, and
 * a user-space initiator (QEMU's iscsi driver). tgt takes four digits for a TCP port of a sheep, so that it is given
 * the unix socket in the store's directory.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { TestNode } from './cluster.js'
import type { Owner } from './owner.js'
import { freePort } from './ports.js'
import { type Running, type RunResult, run, start, tryRun, until } from './run.js'

const START_MS = 20_000
const ADMIN_MS = 20_000
const IO_MS = 60_000
const TARGET = 'iqn.2026-11.test:alice'
const LUN = 1
/** Both paths show the same disk: that makes them one LUN for a multipath initiator. */
const SCSI_ID = 'sheepdog-alice'
const SERIAL = 'alice0001'

export class Target {
  readonly port: number
  readonly node: TestNode
  readonly #daemon: Running

  private constructor(port: number, node: TestNode, daemon: Running) {
    this.port = port
    this.node = node
    this.#daemon = daemon
  }

  /** A tgtd without targets. */
  static async start(t: Owner, node: TestNode): Promise<Target> {
    const port = await freePort()
    const words = ['tgtd', '-f', '-C', `${port}`, '--iscsi', `portal=127.0.0.1:${port}`]
    const daemon = start(words)
    const target = new Target(port, node, daemon)
    // With targets it does not end of a SIGTERM.
    t.teardown(() => target.kill())
    await until('tgtd answering', START_MS, async () => {
      if (daemon.ended()) throw new Error(`tgtd ended: ${(await daemon.done).stderr}`)
      return (await target.tryAdmin('--op', 'show', '--mode', 'sys')).code === 0
    })
    await target.admin('--op', 'new', '--mode', 'target', '--tid', '1', '-T', TARGET)
    await target.admin('--op', 'bind', '--mode', 'target', '--tid', '1', '-I', 'ALL')
    return target
  }

  tryAdmin(...words: readonly string[]): Promise<RunResult> {
    return tryRun(['tgtadm', '-C', `${this.port}`, '--lld', 'iscsi', ...words], {
      timeoutMs: ADMIN_MS,
    })
  }

  admin(...words: readonly string[]): Promise<RunResult> {
    return run(['tgtadm', '-C', `${this.port}`, '--lld', 'iscsi', ...words], {
      timeoutMs: ADMIN_MS,
    })
  }

  tryAttach(vdi: string): Promise<RunResult> {
    const path = `unix:${this.node.place.directory}/sock:${vdi}`
    const what = ['--bstype', 'sheepdog', '-b', path]
    return this.tryAdmin('--op', 'new', ...this.#lun(), ...what)
  }

  async attach(vdi: string): Promise<void> {
    const { code, stderr } = await this.tryAttach(vdi)
    if (code !== 0) throw new Error(`tgt does not attach ${vdi}: ${stderr}`)
    const params = `scsi_id=${SCSI_ID},scsi_sn=${SERIAL}`
    await this.admin('--op', 'update', ...this.#lun(), '--params', params)
  }

  /** Initiators that are logged in keep the LUN. */
  async detach(): Promise<void> {
    await until('the initiator to be gone', ADMIN_MS, async () => {
      return (await this.tryAdmin('--op', 'delete', ...this.#lun())).code === 0
    })
  }

  #lun(): string[] {
    return ['--mode', 'logicalunit', '--tid', '1', '--lun', `${LUN}`]
  }

  get url(): string {
    return `iscsi://127.0.0.1:${this.port}/${TARGET}/${LUN}`
  }

  async kill(): Promise<void> {
    this.#daemon.kill('SIGKILL')
    await this.#daemon.done
  }
}

const PROMPT = 'qemu-io> '

/** One session of an initiator with one target. */
export class Path {
  readonly #process: Running
  #heard = ''
  #wake: () => void = () => undefined

  constructor(t: Owner, { url }: { readonly url: string }) {
    this.#process = start(['qemu-io', '-f', 'raw', '-t', 'none', url], { interactive: true })
    t.teardown(() => this.kill())
    const hear = (chunk: Buffer): void => {
      this.#heard += chunk.toString()
      this.#wake()
    }
    this.#process.child.stdout?.on('data', hear)
    this.#process.child.stderr?.on('data', hear)
  }

  /** False when it failed, or had no answer in time. */
  async write(blockIndex: number, pattern: number, patienceMs = IO_MS): Promise<boolean> {
    const said = await this.#command(`write -P ${pattern} ${at(blockIndex)}`, patienceMs)
    return said?.includes(`wrote ${BLOCK_BYTES}/${BLOCK_BYTES}`) ?? false
  }

  async holds(blockIndex: number, pattern: number, patienceMs = IO_MS): Promise<boolean> {
    const said = await this.#command(`read -P ${pattern} ${at(blockIndex)}`, patienceMs)
    const isRead = said?.includes(`read ${BLOCK_BYTES}/${BLOCK_BYTES}`) ?? false
    return isRead && !said!.includes('Pattern verification failed')
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#process.done
  }

  /** What it said until it was ready for the next command; undefined when it never was. */
  async #command(words: string, patienceMs: number): Promise<string | undefined> {
    if ((await this.#upTo(START_MS)) === undefined) return undefined
    this.#process.child.stdin?.write(`${words}\n`)
    const said = await this.#upTo(patienceMs)
    if (said !== undefined) this.#heard = PROMPT
    return said
  }

  async #upTo(patienceMs: number): Promise<string | undefined> {
    const late = pause(patienceMs, 'late' as const, { ref: false })
    for (;;) {
      const end = this.#heard.indexOf(PROMPT)
      if (end >= 0) {
        const said = this.#heard.slice(0, end)
        this.#heard = this.#heard.slice(end + PROMPT.length)
        return said
      }
      const more = new Promise<'more'>((resolve) => {
        this.#wake = () => resolve('more')
      })
      const ended = this.#process.done.then(() => 'ended' as const)
      const what = await Promise.race([more, ended, late])
      if (what !== 'more' && !this.#heard.includes(PROMPT)) return undefined
    }
  }
}

export const BLOCK_BYTES = 65_536

function at(blockIndex: number): string {
  return `${blockIndex * BLOCK_BYTES} ${BLOCK_BYTES}`
}
