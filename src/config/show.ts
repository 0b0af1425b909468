/**
 * A value as a message shows it, cut where it is long. Whatever a caller or a file may give is shown: numbers that are none, functions,
 * objects that hold themselves.
 */
export function show(value: unknown): string {
  const text = shown(value, 0)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** Levels and members that fit into a message. */
const most = { levels: 3, members: 10 }

function shown(value: unknown, level: number): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value.slice(0, 100))
    case 'bigint':
      return `${value}n`
    case 'function':
      return 'a function'
    case 'object':
      return value === null ? 'null' : container(value, level)
    default:
      return String(value)
  }
}

function container(value: object, level: number): string {
  if (Array.isArray(value)) {
    return level >= most.levels
      ? '[...]'
      : `[${members(
          value.map((one): unknown => one),
          (one) => shown(one, level + 1),
        )}]`
  }
  const name = classOf(value)
  if (name !== undefined) return `${/^[AEIO]/.test(name) ? 'an' : 'a'} ${name}`
  if (level >= most.levels) return '{...}'
  return `{${members(Object.entries(value), ([key, inner]) => `${JSON.stringify(key)}:${shown(inner, level + 1)}`)}}`
}

function members<T>(all: readonly T[], text: (one: T) => string): string {
  const parts = all.slice(0, most.members).map(text)
  return [...parts, ...(all.length > most.members ? ['...'] : [])].join(',')
}

/** Whether a value may have options as properties: a Map or a signal has none, whatever it holds. */
export function isOptions(value: unknown): value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return Object.keys(value).length > 0 || classOf(value) === undefined
}

/** The name of an object's class; undefined for a plain object. */
function classOf(value: object): string | undefined {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === null) return undefined
  const name: unknown = value.constructor?.name
  return typeof name === 'string' && name !== '' && name !== 'Object' ? name : undefined
}
