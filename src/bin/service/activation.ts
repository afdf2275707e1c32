/**
 * Sockets a service manager opened for us (sd_listen_fds(3)): LISTEN_PID says for whom they are, LISTEN_FDS how many,
 * LISTEN_FDNAMES (FileDescriptorName= of the socket unit) what for.
 */

/** The first one; they follow each other. */
const FIRST_FD = 3
const SOCKETS_MAX = 64
/** What systemd calls a socket whose unit or manager gives it no name. */
const NAMELESS = ['unknown', '']

export const DOORS = ['nbd', 'sheepdog', 'iscsi'] as const
export type Door = (typeof DOORS)[number]

/** Descriptors by door; each is a listening stream socket, if who passed it kept the rules. */
export type DoorSockets = Readonly<Record<Door, readonly number[]>>

export const NO_SOCKETS: DoorSockets = { nbd: [], sheepdog: [], iscsi: [] }

/**
 * What was passed to the process `pid`. A socket without a name is for NBD, as with other NBD servers. Throws an Error
 * for people.
 */
export function passedSockets(
  env: Readonly<Record<string, string | undefined>>,
  pid: number,
): DoorSockets {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env
  // Somebody else's, who forgot to take the variables away: sd_listen_fds does not look at them either.
  if (LISTEN_FDS === undefined || LISTEN_PID !== `${pid}`) return NO_SOCKETS
  const count = Number(LISTEN_FDS)
  if (!/^\d+$/.test(LISTEN_FDS) || count > SOCKETS_MAX) {
    throw new Error(`LISTEN_FDS is '${LISTEN_FDS}', not a number of sockets up to ${SOCKETS_MAX}`)
  }
  const names = LISTEN_FDNAMES?.split(':') ?? Array.from({ length: count }, () => '')
  if (names.length !== count) {
    throw new Error(`LISTEN_FDNAMES has ${names.length} names for ${count} sockets (LISTEN_FDS)`)
  }
  const sockets: Record<Door, number[]> = { nbd: [], sheepdog: [], iscsi: [] }
  for (const [i, name] of names.entries()) sockets[doorOf(name, FIRST_FD + i)].push(FIRST_FD + i)
  return sockets
}

function doorOf(name: string, fd: number): Door {
  if (NAMELESS.includes(name)) return 'nbd'
  const door = DOORS.find((known) => known === name)
  if (door !== undefined) return door
  const known = `FileDescriptorName= is one of ${DOORS.join(', ')}`
  throw new Error(
    `the socket passed as descriptor ${fd} is for '${name}', which is no door: ${known}`,
  )
}

/** Children must not take them for theirs. */
export function forgetSockets(env: Record<string, string | undefined>): void {
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name]
}
