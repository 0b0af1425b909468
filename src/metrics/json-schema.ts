import { Ajv, type Options } from 'ajv'
import { Ajv2019 } from 'ajv/dist/2019.js'
import { Ajv2020 } from 'ajv/dist/2020.js'

/** Formats are annotations, as the specification has it; unknown words mean nothing. */
const options: Options = { strict: false, validateFormats: false, logger: false }

/**
 * What checks values against a JSON Schema, of draft 7, 2019-09 or 2020-12 by its `$schema`; the last where it says nothing.
 *
 * @throws Error: it is no schema, or refers to others.
 */
export function schemaCheck(schema: Readonly<Record<string, unknown>>): (value: unknown) => boolean {
  const said = schema['$schema']
  const draft = typeof said === 'string' ? said : ''
  const ajv = draft.includes('draft-07')
    ? new Ajv(options)
    : draft.includes('2019-09')
      ? new Ajv2019(options)
      : new Ajv2020(options)
  const validate = ajv.compile(schema)
  return (value) => validate(value) === true
}
