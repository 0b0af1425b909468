/*
 * Some templates write the day (`strftime_now` of transformers). It is one for a whole run, also where that is resumed on another day: else
 * the same data would become other tokens.
 */

/** The day in the time zone of this machine: `2026-11-27`. */
export function dayOf(now: Date): string {
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`
}

const two = (value: number): string => String(value).padStart(2, '0')

const months = 'January February March April May June July August September October November December'.split(' ')
const days = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ')

/**
 * A day at midnight, as Python's `strftime` writes it in English.
 *
 * @throws Error: a directive that is not known.
 */
export function strftime(day: string, format: string): string {
  const date = new Date(`${day}T00:00:00Z`)
  const month = months[date.getUTCMonth()]!
  const weekday = days[date.getUTCDay()]!
  const directives: Readonly<Record<string, string>> = {
    Y: String(date.getUTCFullYear()).padStart(4, '0'),
    y: two(date.getUTCFullYear() % 100),
    m: two(date.getUTCMonth() + 1),
    B: month,
    b: month.slice(0, 3),
    d: two(date.getUTCDate()),
    A: weekday,
    a: weekday.slice(0, 3),
    H: '00',
    I: '12',
    p: 'AM',
    M: '00',
    S: '00',
    '%': '%',
  }
  return format.replaceAll(/%(.?)/gs, (whole, directive: string) => {
    const found = Object.hasOwn(directives, directive) ? directives[directive] : undefined
    if (found === undefined) throw new Error(`strftime_now: ${JSON.stringify(whole)} is not known`)
    return found
  })
}
