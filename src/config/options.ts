import { z } from 'zod'

/** The parts of JSON Schema that the option schemas use. */
interface JsonSchema {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
  readonly minLength?: number
  readonly enum?: readonly (string | number)[]
  readonly const?: string | number
  readonly anyOf?: readonly JsonSchema[]
  readonly items?: JsonSchema
  readonly additionalProperties?: JsonSchema | boolean
  readonly group?: string
  readonly placeholder?: string
  readonly accepts?: string
  readonly unset?: string
  readonly secret?: boolean
  readonly path?: boolean
  readonly repeated?: boolean
}

/** How the text of a flag becomes a value. `modules` is a list of names or one regular expression; of `repeated`, each flag is one of a list. */
type OptionKind = 'boolean' | 'number' | 'text' | 'list' | 'repeated' | 'numberList' | 'record' | 'modules'

/** One option as flags, files, help and messages need it; derived from the schema, never written by hand. */
export interface Option {
  /** camelCase, as in TypeScript. */
  readonly key: string
  /** As in PEFT, transformers and YAML files: snake_case. */
  readonly snake: string
  /** Without the leading dashes. */
  readonly flag: string
  readonly kind: OptionKind
  readonly group: string
  readonly help: string
  readonly placeholder: string | undefined
  /** What values are accepted, in words. */
  readonly accepts: string
  readonly required: boolean
  readonly default: unknown
  /** What leaving it out means, where there is no default. */
  readonly unset: string | undefined
  /** Whether its value stays out of messages. */
  readonly secret: boolean
  /** Whether it is the path of a file or folder. */
  readonly path: boolean
}

/** The JSON Schema of a configuration, for editors and forms. */
export function jsonSchema(schema: z.ZodObject): Record<string, unknown> {
  return z.toJSONSchema(schema, { io: 'input' })
}

/** `loraAlpha` as `lora_alpha`; a number that begins a word as in BitsAndBytesConfig: `loadIn4bit` as `load_in_4bit`. */
export function snakeCase(key: string): string {
  return key.replace(/[A-Z]|(?<=[a-z])\d+(?=[a-z])/g, (start) => `_${start.toLowerCase()}`)
}

/** The options of a schema, in the order of their declaration. */
export function optionsOf(schema: z.ZodObject): readonly Option[] {
  const json = jsonSchema(schema) as { properties: Record<string, JsonSchema>; required?: string[] }
  return Object.entries(json.properties).map(([key, property]) => {
    const kind = kindOf(property)
    const snake = snakeCase(key)
    return {
      key,
      snake,
      flag: snake.replaceAll('_', '-'),
      kind,
      group: property.group ?? 'Other',
      help: property.description ?? '',
      placeholder: property.placeholder ?? placeholderOf(property, kind),
      accepts: property.accepts ?? acceptsOf(property),
      required: json.required?.includes(key) ?? false,
      default: property.default,
      unset: property.unset,
      secret: property.secret ?? false,
      path: property.path ?? false,
    }
  })
}

function kindOf(schema: JsonSchema): OptionKind {
  if (schema.repeated === true) return 'repeated'
  if (schema.path === true) return 'text'
  if (schema.anyOf !== undefined) return schema.anyOf.some((one) => one.type === 'array') ? 'modules' : 'number'
  switch (schema.type) {
    case 'boolean':
      return 'boolean'
    case 'integer':
    case 'number':
      return 'number'
    case 'array':
      return schema.items?.type === 'string' ? 'list' : 'numberList'
    case 'object':
      return 'record'
    default:
      return 'text'
  }
}

function placeholderOf(schema: JsonSchema, kind: OptionKind): string | undefined {
  switch (kind) {
    case 'boolean':
      return undefined
    case 'number':
      return 'N'
    case 'numberList':
      return 'N,N'
    case 'record':
      return 'KEY=N,...'
    case 'text':
      return schema.enum?.join('|') ?? 'TEXT'
    default:
      return 'A,B'
  }
}

function acceptsOf(schema: JsonSchema): string {
  if (schema.anyOf !== undefined) return schema.anyOf.map(acceptsOf).join(' or ')
  if (schema.const !== undefined) return String(schema.const)
  if (schema.enum !== undefined) return `one of ${schema.enum.join(', ')}`
  switch (schema.type) {
    case 'boolean':
      return 'true or false'
    case 'integer':
      return `a whole number${rangeOf(schema)}`
    case 'number':
      return `a number${rangeOf(schema)}`
    case 'array':
      return `a list, each ${acceptsOf(schema.items ?? {})}`
    case 'object':
      return typeof schema.additionalProperties === 'object'
        ? `names, each with ${acceptsOf(schema.additionalProperties)}`
        : 'names with values'
    default:
      return 'a non-empty string'
  }
}

function rangeOf(schema: JsonSchema): string {
  const low =
    schema.exclusiveMinimum === undefined
      ? schema.minimum === undefined
        ? ''
        : ` from ${schema.minimum}`
      : ` above ${schema.exclusiveMinimum}`
  const high =
    schema.exclusiveMaximum === undefined
      ? schema.maximum === undefined
        ? ''
        : ` up to ${schema.maximum}`
      : ` below ${schema.exclusiveMaximum}`
  return low !== '' && high !== '' && low.startsWith(' above') ? `${low},${high}` : `${low}${high}`
}
