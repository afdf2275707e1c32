/**
 * Dates in local time (TZ), in the shapes 1.0 prints (dog spec, section 2). Input: Unix seconds.
 */

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const
const MONTHS = [
  'Jan',
  'Feb',
  'Mar',
  'Apr',
  'May',
  'Jun',
  'Jul',
  'Aug',
  'Sep',
  'Oct',
  'Nov',
  'Dec',
] as const

const two = (value: number): string => String(value).padStart(2, '0')

/** `2026-11-21` */
export function dayText(seconds: number): string {
  const date = new Date(seconds * 1000)
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
}

/** `09:39:58` */
export function clockText(seconds: number): string {
  const date = new Date(seconds * 1000)
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

/** `2026-11-21 09:39` */
export function minuteText(seconds: number): string {
  return `${dayText(seconds)} ${clockText(seconds).slice(0, 5)}`
}

/** `2026-11-21 09:39:58` */
export function secondText(seconds: number): string {
  return `${dayText(seconds)} ${clockText(seconds)}`
}

/** `Sat Nov 21 09:39:58 2026`, as ctime(3) without its newline. */
export function ctimeText(seconds: number): string {
  const date = new Date(seconds * 1000)
  const day = String(date.getDate()).padStart(2)
  const names = `${DAYS[date.getDay()]} ${MONTHS[date.getMonth()]}`
  return `${names} ${day} ${clockText(seconds)} ${date.getFullYear()}`
}

/** `2026 Nov 21 09:44:24`, the stamp of the invocation log. */
export function logStamp(seconds: number): string {
  const date = new Date(seconds * 1000)
  const month = MONTHS[date.getMonth()]
  return `${date.getFullYear()} ${month} ${two(date.getDate())} ${clockText(seconds)}`
}
