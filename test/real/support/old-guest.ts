/** A guest in QEMU 5.2, its disk on the sheepdog protocol, with its console and its monitor at hand. */
import { createConnection, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import type { GuestParts } from './guest.js'
import type { Owner } from './owner.js'
import { QEMU52 } from './qemu52.js'
import { type Running, start, until } from './run.js'

const BOOT_MS = 180_000
const MEMORY_MIB = 160
const ANSWER_MS = 120_000

export interface Hardware {
  /** Words of the command line that make the disk: a `root` of `-device virtio-blk-pci,drive=root`. */
  readonly disk: readonly string[]
  /** Where its monitor listens; a path that does not exist yet. */
  readonly monitor: string
  /** More words on its kernel's command line. */
  readonly words?: string
}

/** The disk as `-drive file=` names it, over QEMU's raw format. */
export function drive(file: string, cache: string): string[] {
  return ['-drive', `if=none,id=root,format=raw,cache=${cache},discard=unmap,file=${file}`]
}

export class OldGuest {
  readonly #process: Running
  readonly #monitorPath: string
  #console = ''
  #monitor: Monitor | undefined

  constructor(t: Owner, parts: GuestParts, { disk, monitor, words = '' }: Hardware) {
    const append =
      'console=ttyS0 loglevel=4 panic=-1 random.trust_cpu=on nokaslr mitigations=off no_timer_check'
    this.#monitorPath = monitor
    this.#process = start([
      ...[...QEMU52.system, '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', `${MEMORY_MIB}`],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
      ...['-kernel', parts.kernel, '-initrd', parts.initrd, '-append', `${append} ${words}`],
      ...[...disk, '-device', 'virtio-blk-pci,drive=root'],
      ...['-qmp', `unix:${monitor},server,nowait`],
    ])
    this.#process.child.stdout?.on('data', (chunk: Buffer) => {
      this.#console += chunk.toString()
    })
    t.teardown(async () => {
      if (!t.passed) t.log(`--- console of the guest\n${this.#console.slice(-4000)}`)
      this.#monitor?.close()
      this.#process.kill('SIGKILL')
      await this.#process.done
    })
  }

  get console(): string {
    return this.#console
  }

  /** Waits until the console, from `from` on, matches; gives the match. */
  async says(pattern: RegExp, from = 0): Promise<RegExpExecArray> {
    const found = await until(`guest says ${pattern}`, BOOT_MS, () => {
      const match = pattern.exec(this.#console.slice(from))
      return match ?? (this.#process.ended() ? 'ended' : undefined)
    })
    if (found !== 'ended') return found
    const { code, signal, stderr } = await this.#process.done
    throw new Error(`QEMU ended with ${signal || code}, waiting for ${pattern}: ${stderr}`)
  }

  /** A command for people, as `savevm`; throws with what QEMU has to say to it, which is an error. */
  async tell(command: string): Promise<void> {
    const said = await this.ask(command)
    if (said !== '') throw new Error(`${command}: ${said}`)
  }

  async ask(command: string): Promise<string> {
    this.#monitor ??= await Monitor.connect(this.#monitorPath)
    return (await this.#monitor.human(command)).trim()
  }

  /** Waits for its end; throws unless it was one in order. */
  async over(): Promise<void> {
    const { code, signal, stderr } = await this.#process.done
    if (code !== 0) throw new Error(`QEMU ended with ${signal || code}: ${stderr}`)
  }
}

/** QEMU's monitor (QMP), of which only the commands for people are used. */
class Monitor {
  readonly #socket: Socket
  #answered: ((text: string) => void) | undefined
  #failed: ((error: Error) => void) | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    createInterface({ input: socket }).on('line', (line) => this.#received(line))
    socket.on('close', () => this.#failed?.(new Error('the monitor is closed')))
    socket.on('error', (error) => this.#failed?.(error))
  }

  static async connect(path: string): Promise<Monitor> {
    const socket = createConnection({ path })
    const monitor = new Monitor(socket)
    await monitor.#command({ execute: 'qmp_capabilities' })
    return monitor
  }

  human(line: string): Promise<string> {
    const options = { 'command-line': line }
    return this.#command({ execute: 'human-monitor-command', arguments: options })
  }

  close(): void {
    this.#socket.destroy()
  }

  async #command(command: object): Promise<string> {
    const late = setTimeout(() => this.#failed?.(new Error(`no answer to ${command}`)), ANSWER_MS)
    try {
      return await new Promise<string>((resolve, reject) => {
        this.#answered = resolve
        this.#failed = reject
        this.#socket.write(`${JSON.stringify(command)}\n`)
      })
    } finally {
      clearTimeout(late)
    }
  }

  #received(line: string): void {
    const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } }
    if (message.error !== undefined) this.#failed?.(new Error(message.error.desc))
    else if (typeof message.return === 'string') this.#answered?.(message.return)
    else if (message.return !== undefined) this.#answered?.('')
  }
}
