import type { Template } from '@huggingface/jinja'

/*
 * Templates are written for Python. Where the engine computes with JavaScript's values otherwise than Jinja does with Python's (`'' ==
 * false`, `true` as text, what `strip` takes away), the expression is replaced by a call of a function here. What the engine does not know
 * at all it refuses, which is left to it.
 */

/** A value while a template is rendered: its type says what JavaScript's cannot, an integer from a float. */
interface RuntimeValue {
  readonly type: string
  readonly value: unknown
}

interface Node {
  readonly type: string
  [key: string]: unknown
}

/** Makes the expressions of a parsed template Python's. They need `pythonFunctions` among their variables. */
export function asPython(program: Template['parsed']): void {
  rewriteParts(program as unknown as Node)
}

/** The nodes of a template that print nothing by themselves. */
const statements: ReadonlySet<string> = new Set(
  'Program If For Break Continue Set Macro Comment CallStatement FilterStatement'.split(' '),
)

/** Lists of what is printed one after the other. */
const printing: ReadonlySet<string> = new Set(['body', 'alternate', 'defaultBlock'])

function rewriteParts(node: Node): void {
  for (const [key, part] of Object.entries(node)) {
    if (Array.isArray(part)) {
      node[key] = part.map((one: unknown) => {
        const found = rewritten(one)
        return printing.has(key) && isNode(found) && isPrinted(found) ? call('printed', [found]) : found
      })
    } else if (part instanceof Map) {
      node[key] = new Map(Array.from(part, ([name, value]) => [rewritten(name), rewritten(value)] as const))
    } else {
      node[key] = rewritten(part)
    }
  }
}

function isPrinted({ type }: Node): boolean {
  return !statements.has(type) && type !== 'StringLiteral'
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && typeof (value as Node).type === 'string'
}

/** An expression as it is to be evaluated; whatever is no node stays. */
function rewritten(value: unknown): unknown {
  if (!isNode(value)) return value
  rewriteParts(value)
  return rewrites[value.type]?.(value) ?? value
}

const rewrites: Readonly<Record<string, (node: Node) => Node | undefined>> = {
  BinaryExpression({ operator, left, right }) {
    const name = binaries[(operator as { readonly value: string }).value]
    return name === undefined ? undefined : call(name, [left, right])
  },
  TestExpression({ test, operand, negate }) {
    const name = tests[nameOf(test) ?? '']
    if (name === undefined) return undefined
    const found = call(name, [operand])
    return negate === true ? { type: 'UnaryExpression', operator: { value: 'not' }, argument: found } : found
  },
  CallExpression({ callee, args }) {
    if (nameOf(callee) === 'strftime_now') return call('strftime_now', args as unknown[])
    const { type, object, property, computed } = callee as Node
    const name = type === 'MemberExpression' && computed !== true ? nameOf(property) : undefined
    return name !== undefined && strips.includes(name) ? call(name, [object, ...(args as unknown[])]) : undefined
  },
  FilterExpression(node) {
    const { operand, filter } = node
    const name = nameOf(filter)
    if (name === 'trim') return call('trim', [operand])
    if (name === 'length' || name === 'count') return call('length', [operand])
    const { callee, args } = filter as { readonly callee?: unknown; readonly args?: readonly Node[] }
    const other = opposites[nameOf(callee) ?? '']
    // An attribute that is missing passes no test here, not even `undefined`.
    if (other === undefined || args?.length !== 2 || args[1]?.['value'] !== 'undefined') return undefined
    const defined = [args[0], { type: 'StringLiteral', value: 'defined' }]
    return {
      type: 'FilterExpression',
      operand,
      filter: { type: 'CallExpression', callee: identifier(other), args: defined },
    }
  },
}

const binaries: Readonly<Record<string, string>> = { '==': 'equal', '!=': 'unequal', '~': 'printed', '%': 'modulo' }
const tests: Readonly<Record<string, string>> = { number: 'isNumber', iterable: 'isIterable' }
const opposites: Readonly<Record<string, string>> = { selectattr: 'rejectattr', rejectattr: 'selectattr' }
const strips = ['strip', 'lstrip', 'rstrip']

function nameOf(node: unknown): string | undefined {
  return isNode(node) && node.type === 'Identifier' ? (node['value'] as string) : undefined
}

function identifier(value: string): Node {
  return { type: 'Identifier', value }
}

/** A call with all operands in one list: there they keep their types, as arguments they lose them. */
function call(name: string, operands: readonly unknown[]): Node {
  const args = [{ type: 'ArrayLiteral', value: operands }]
  return { type: 'CallExpression', callee: identifier(`python ${name}`), args }
}

type Operands = readonly RuntimeValue[]

const functions: Readonly<Record<string, (operands: Operands) => unknown>> = {
  printed: (operands) => operands.map(printed).join(''),
  equal: ([a, b]) => equal(a!, b!),
  unequal: ([a, b]) => !equal(a!, b!),
  modulo([a, b]) {
    if (a?.type !== 'IntegerValue' || b?.type !== 'IntegerValue') throw new Error('% is for integers')
    const [left, right] = [a.value as number, b.value as number]
    if (right === 0) throw new Error('modulo by zero')
    return left - right * Math.floor(left / right)
  },
  isNumber: ([x]) => ['IntegerValue', 'FloatValue', 'BooleanValue'].includes(x!.type),
  isIterable: ([x]) => ['ArrayValue', 'TupleValue', 'StringValue', 'ObjectValue'].includes(x!.type),
  trim: ([x]) => stripped(printed(x!), undefined, 'both'),
  strip: ([x, of]) => stripped(text(x!), charactersOf(of), 'both'),
  lstrip: ([x, of]) => stripped(text(x!), charactersOf(of), 'left'),
  rstrip: ([x, of]) => stripped(text(x!), charactersOf(of), 'right'),
  length([x]) {
    const { value } = x!
    if (typeof value === 'string') return Array.from(value).length
    if (Array.isArray(value)) return value.length
    if (value instanceof Map) return value.size
    throw new Error(`${x!.type} has no length`)
  },
}

/** The variables that `asPython` needs; no name of a template has a space. */
export const pythonFunctions: Readonly<Record<string, unknown>> = Object.fromEntries(
  Object.entries(functions).map(([name, f]) => [`python ${name}`, f]),
)

/** The variable that `asPython` needs besides: the engine knows no day but that of its clock, and the language of the machine. */
export function pythonDate(write: (format: string) => string): Readonly<Record<string, unknown>> {
  return { 'python strftime_now': ([format]: Operands) => write(text(format!)) }
}

function text({ type, value }: RuntimeValue): string {
  if (typeof value !== 'string') throw new Error(`${type} is no text`)
  return value
}

/** A value as Jinja prints it: as Python's `str`, and nothing where there is no value. */
function printed(x: RuntimeValue): string {
  if (x.type === 'StringValue') return x.value as string
  return x.type === 'UndefinedValue' ? '' : repr(x)
}

/** Python's `repr`. */
function repr({ type, value }: RuntimeValue): string {
  switch (type) {
    case 'BooleanValue':
      return value === true ? 'True' : 'False'
    case 'NullValue':
      return 'None'
    case 'IntegerValue':
      return String(value)
    case 'FloatValue':
      return floatText(value as number)
    case 'StringValue':
      return quoted(value as string)
    case 'ArrayValue':
      return `[${(value as Operands).map(repr).join(', ')}]`
    case 'TupleValue':
      return `(${(value as Operands).map(repr).join(', ')}${(value as Operands).length === 1 ? ',' : ''})`
    case 'ObjectValue':
      return `{${Array.from(value as Map<string, RuntimeValue>, ([key, one]) => `${quoted(key)}: ${repr(one)}`).join(', ')}}`
    default:
      throw new Error(`${type} cannot be written as text`)
  }
}

function floatText(value: number): string {
  const size = Math.abs(value)
  // Python changes to powers of ten at other sizes.
  if (size !== 0 && (size >= 1e16 || size < 1e-4)) throw new Error(`the number ${value} cannot be written as text`)
  return Number.isInteger(value) ? `${value}.0` : String(value)
}

function quoted(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'"
  const inner = value.replace(/[\\'\n\r\t]|[^\P{C}\n\r\t]/gu, (character) => {
    if (character === "'") return quote === "'" ? "\\'" : "'"
    const known = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }[character]
    if (known === undefined) throw new Error('a control character cannot be written in quotes')
    return known
  })
  return `${quote}${inner}${quote}`
}

/** Python's `==`, of the values' parts too; true is 1. */
function equal(a: RuntimeValue, b: RuntimeValue): boolean {
  const [left, right] = [comparable(a), comparable(b)]
  if (Array.isArray(left) && Array.isArray(right)) {
    return left.length === right.length && left.every((one: RuntimeValue, i) => equal(one, right[i] as RuntimeValue))
  }
  if (left instanceof Map && right instanceof Map) {
    if (left.size !== right.size) return false
    return Array.from(left as Map<string, RuntimeValue>).every(([key, one]) => {
      const other = (right as Map<string, RuntimeValue>).get(key)
      return other !== undefined && equal(one, other)
    })
  }
  return left === right
}

/** The engine gives no value to both, what is None and what is not there. */
function comparable({ type, value }: RuntimeValue): unknown {
  if (type === 'NullValue') return null
  return typeof value === 'boolean' ? Number(value) : value
}

/** What Python's `strip` takes away where nothing is said; JavaScript's `trim` takes others. */
const blanks =
  '\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'

function charactersOf(of: RuntimeValue | undefined): string | undefined {
  return of === undefined || of.type === 'NullValue' ? undefined : text(of)
}

function stripped(value: string, of: string | undefined, side: 'both' | 'left' | 'right'): string {
  const taken = new Set(of ?? blanks)
  const characters = Array.from(value)
  let [start, end] = [0, characters.length]
  if (side !== 'right') while (start < end && taken.has(characters[start]!)) start++
  if (side !== 'left') while (end > start && taken.has(characters[end - 1]!)) end--
  return characters.slice(start, end).join('')
}
