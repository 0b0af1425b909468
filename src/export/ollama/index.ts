import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../../formats/atomic.ts'
import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { openModelFiles } from '../../formats/model-files.ts'
import { readText } from '../../formats/plain-file.ts'
import { templatesOf } from '../../text/template/choose.ts'
import { loadTokenizer } from '../../text/tokenizer.ts'
import { internalError } from '../../util/errors.ts'
import type { Checked, Exporter, ExportInput } from '../exporter.ts'
import { checkModel, gguf, neededModel } from '../gguf/model.ts'
import { endsOf } from '../gguf/tokenizer.ts'
import { recognise, type Recognised } from './templates.ts'

const [modelFile, weightsFile] = ['Modelfile', 'model.gguf'] as const

/** A folder for `ollama create`: the whole model as GGUF, and a Modelfile that says how conversations are written. */
export const ollama: Exporter = {
  makes: 'folder',
  needs: ['model'],
  dtypes: gguf.dtypes,
  write: async (input, folder) => {
    const { files, notes } = await gguf.write(input, join(folder, weightsFile))
    const { text, notes: own } = await modelfileOf(input)
    const path = join(folder, modelFile)
    await writeFileAtomic(path, text)
    return { files: [...files, { name: modelFile, bytes: (await stat(path)).size }], notes: [...notes, ...own] }
  },
  check: async (input, folder): Promise<Checked> => {
    const found = await readText(join(folder, modelFile), { code: 'io', maxBytes: 2 ** 22 })
    if (found !== (await modelfileOf(input)).text) throw internalError(`${folder}: ${modelFile} is another`)
    return checkModel(input, join(folder, weightsFile))
  },
}

async function modelfileOf(input: ExportInput): Promise<{ readonly text: string; readonly notes: readonly string[] }> {
  const { adapter, cancelled, name } = input
  const model = neededModel(input)
  const template = (await templatesOf({ model, adapter })).get('default')
  const tokenizer = await loadTokenizer(model, { cancelled })
  try {
    const { roles, prefix } = tokenizer
    const generation = await generationConfig(model)
    const ends = await Promise.all(
      [...new Set([tokenizer.eosId, ...endsOf(generation)])].map((id) => tokenizer.tokenOf(id)),
    )
    const found = template === undefined ? undefined : recognise(template, roles)
    // A Modelfile has no escapes, and ends a text where three quotes are.
    const known = found !== undefined && sayable(found.go) && sayable(found.system ?? '') ? found : undefined
    const stops = new Set([...ends.filter((token) => token !== undefined && sayable(token)), ...(known?.stops ?? [])])
    const bos = known?.writesBos === true && prefix.length === 0 ? (roles['bos_token'] ?? '') : ''
    const lines = [
      `# ${oneLine(name)}: ollama create NAME -f ${modelFile}`,
      `FROM ./${weightsFile}`,
      ...templateLines(template, known, bos),
      ...[...stops].map((stop) => `PARAMETER stop ${quoted(stop ?? '')}`),
      ...parametersOf(generation).map(([key, value]) => `PARAMETER ${key} ${value}`),
    ]
    return { text: `${lines.join('\n')}\n`, notes: notesOf(template, known) }
  } finally {
    tokenizer.close()
  }
}

async function generationConfig(model: string): Promise<JsonObject> {
  const files = await openModelFiles(model)
  const name = 'generation_config.json'
  return files.names.includes(name) ? files.json(name) : {}
}

function templateLines(template: string | undefined, known: Recognised | undefined, bos: string): string[] {
  if (template === undefined) {
    return ['# The model has no chat template: texts are continued as they are.', 'TEMPLATE """{{ .Prompt }}"""']
  }
  if (known === undefined) {
    return [
      '# The chat template of the model is none of those that are known in the language of Go. Ollama looks at the one in the GGUF file,',
      '# and takes its own for it where it knows it; otherwise write it here: TEMPLATE """..."""',
    ]
  }
  const system = known.system === undefined ? [] : [`SYSTEM ${quoted(known.system)}`]
  return [`# ${known.name}`, `TEMPLATE """${bos}${known.go}"""`, ...system]
}

function notesOf(template: string | undefined, known: Recognised | undefined): string[] {
  if (template === undefined) return ['the model has no chat template: the Modelfile has texts continued as they are']
  if (known !== undefined)
    return [`chat template: ${known.name}${known.system === undefined ? '' : ', with its system prompt'}`]
  return [
    'the chat template is not known in the language of Ollama: the Modelfile has no TEMPLATE, see the comment in it',
  ]
}

function sayable(text: string): boolean {
  return !text.includes('"""') && !text.endsWith('"') && !text.includes('\0')
}

/** Quotes that are not in the text, or three of them. */
function quoted(text: string): string {
  return /["\n]/.test(text) ? `"""${text}"""` : `"${text}"`
}

function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]+/g, ' ')
}

/** What the generation_config.json says of sampling; what it leaves out is left to Ollama. */
function parametersOf(generation: JsonObject): [string, number][] {
  if (!isJsonObject(generation)) return []
  const names = {
    temperature: 'temperature',
    top_k: 'top_k',
    top_p: 'top_p',
    min_p: 'min_p',
    repetition_penalty: 'repeat_penalty',
  }
  const greedy: [string, number][] = generation['do_sample'] === false ? [['temperature', 0]] : []
  const given = Object.entries(names).flatMap(([key, name]): [string, number][] => {
    const value = generation[key]
    if (typeof value !== 'number' || !Number.isFinite(value) || (greedy.length > 0 && name === 'temperature')) return []
    return [[name, value]]
  })
  return [...greedy, ...given]
}
