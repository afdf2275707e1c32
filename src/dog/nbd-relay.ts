/**
 * Carries bytes between a server and the kernel, where the kernel cannot speak to the server itself (TLS). One who is slow
 * holds up the other; nothing is looked at, and nothing is kept.
 */
import type { Connection } from '../world/world.js'

/** Resolves when both connections have ended; takes both over. */
export async function relay(kernel: Connection, server: Connection): Promise<void> {
  let isServerBehind = false
  const kernelOver = new Promise<void>((resolve) => {
    kernel.on({
      data: (bytes) => {
        if (server.write(bytes)) return
        isServerBehind = true
        kernel.pause()
      },
      drain: () => server.resume(),
      close: () => {
        // Requests that still wait here have been given up by the kernel, and perhaps sent to somebody else: they must not
        // come late. Else the last word is that it disconnects.
        if (isServerBehind) server.destroy()
        else server.end()
        resolve()
      },
    })
  })
  const serverOver = new Promise<void>((resolve) => {
    server.on({
      data: (bytes) => {
        if (!kernel.write(bytes)) server.pause()
      },
      drain: () => {
        isServerBehind = false
        kernel.resume()
      },
      close: () => {
        // What it answered before it went is answered; for the rest the kernel sees the end of the connection.
        kernel.end()
        resolve()
      },
    })
  })
  await Promise.all([kernelOver, serverOver])
}
