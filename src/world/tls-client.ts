/** TLS of clients whose protocol begins in the clear and is upgraded (STARTTLS). */
import type { Connection } from './world.js'

/** Where a client has its keys, in the files libnbd and QEMU have theirs in; all paths are whole ones. */
export interface TlsKeys {
  /** Directory with `ca-cert.pem` and, where the server asks who we are, `client-cert.pem` and `client-key.pem`. */
  readonly certificates?: string | undefined
  /** File with lines `NAME:KEY`, the key in hexadecimal digits; what counts where both are there. */
  readonly preSharedKeys?: string | undefined
  /** Whose key it is; may be left out where there is only one. */
  readonly user?: string | undefined
  /** Whom the server's certificate must name, if not the host that was dialled. */
  readonly hostname?: string | undefined
}

export interface TlsClient {
  /**
   * Takes over a connection whose server awaits a TLS handshake, and of which nothing is unread. `host`: whom the server's
   * certificate must name; undefined where nobody knows (unix sockets). The keys are read anew each time: they may
   * have been renewed. Rejects with an Error for people, the connection closed.
   */
  secure(connection: Connection, host: string | undefined): Promise<Connection>
}

export type TlsClients = (keys: TlsKeys) => TlsClient
