/** What a subcommand is: its words, options and texts, and the code that runs it. */
import type { Images } from '../world/images.js'
import type { NbdKernel } from '../world/nbd-kernel.js'
import type { TlsClients } from '../world/tls-client.js'
import type { World } from '../world/world.js'
import type { Sheep } from './client.js'
import type { DogOptions, OptionSpec } from './options.js'
import type { ErrorStream, Output, OutputStream } from './output.js'
import type { LineReader } from './prompt.js'

/** The process around a run, so that tests can be one. */
export interface DogIo {
  readonly stdout: OutputStream
  readonly stderr: ErrorStream
  /** Looked at only by commands that read it. */
  readonly stdin: AsyncIterable<Buffer>
  /** Somebody types it. */
  readonly stdinIsTTY?: boolean
  /** Width of the terminal on stdout; 80 when there is none. */
  readonly columns: number
  /** Version of the program, for the overview. */
  readonly version: string
  /** A name to an address (getaddrinfo, the first result); undefined when it does not resolve. */
  resolve(name: string): Promise<string | undefined>
  /** Files of disks, for commands that read or write them. */
  readonly images: Images
  /** From now on SIGINT and SIGTERM call `stop` instead of ending the program; returns the way back. */
  onInterrupt(stop: () => void): () => void
  /** Keeps a record of the invocation: in the file at `path`, else in syslog. */
  record(line: string, path: string | undefined): Promise<void>
  /**
   * Starts this run once more with `more` behind its two command words, to go on in the background. Resolves with the status
   * when it has said that it is ready, or has ended. Absent where nothing can be left behind.
   */
  startBehind?(more: readonly string[]): Promise<number>
  /** Says so. */
  ready?(): void
}

export interface DogWorld extends Pick<World, 'clock' | 'network' | 'random'> {
  /** Absent where the kernel has none. */
  readonly nbdKernel?: NbdKernel
  readonly tlsClient?: TlsClients
}

export type Environment = Readonly<Record<string, string | undefined>>

/** What a running subcommand works with. */
export interface Context {
  readonly options: DogOptions
  /** Words that are not options, after the two command words. */
  readonly operands: readonly string[]
  readonly out: Output
  readonly io: DogIo
  readonly world: DogWorld
  /** The sheep of `-a` and `-p`; connects with the first request. */
  readonly sheep: Sheep
  readonly lines: LineReader
}

export interface Subcommand {
  readonly name: string
  /** For the overview. */
  readonly summary: string
  readonly options: readonly OptionSpec[]
  /** As in the usage line: `<vdiname> <size>`; empty when there are none. */
  readonly synopsis: string
  /** Without any operand the user gets the help. */
  readonly needsOperand?: boolean
  /** Its third words, whose runs count then instead of its own. */
  readonly words?: readonly ThirdWord[]
  /** Meant when the third word is left out. */
  readonly defaultWord?: string
  /** Returns the exit status; throws a Failure. */
  run(context: Context): Promise<number>
}

/** `set-throttle` of `dog node recovery set-throttle`; it takes the options of its subcommand. */
export type ThirdWord = Omit<Subcommand, 'options' | 'words' | 'defaultWord'>

export interface Noun {
  readonly name: string
  readonly subcommands: readonly Subcommand[]
}
