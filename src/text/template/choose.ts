import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { hashFile, hashText } from '../../formats/hash.ts'
import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { openModelFiles } from '../../formats/model-files.ts'
import { readText } from '../../formats/plain-file.ts'
import { LowrankError } from '../../util/errors.ts'
import type { Tokenizer } from '../tokenizer.ts'
import { namedTemplates, neededTokens } from './named.ts'
import { ChatTemplate } from './template.ts'

/** The file that holds a template and nothing else. */
export const templateName = 'chat_template.jinja'

const maxTemplateBytes = 2 ** 20

/**
 * The template that conversations are written with: the one that an adapter was trained with, the model's own, or the one that is named,
 * which is one of the model's, one of `namedTemplates`, or a file. Undefined where there is none and none is named.
 *
 * @throws LowrankError `config`: it does not exist, or does not go with the tokenizer; `model`: it is no template.
 */
export async function chooseTemplate(
  { model, adapter }: { readonly model: string; readonly adapter?: string | undefined },
  name: string | undefined,
  tokenizer: Pick<Tokenizer, 'roles' | 'addedTokens'>,
): Promise<ChatTemplate | undefined> {
  const own = [...(await adapterTemplate(adapter)), ...(await ownTemplates(model))]
  const made = (source: string, origin: string): ChatTemplate => new ChatTemplate(source, origin, tokenizer.roles)
  if (name === undefined) {
    // A model with several has one for most, and others for tools or documents.
    const [first] = own
    const chosen = own.find((one) => one.name === 'default') ?? first
    return chosen && made(chosen.source, chosen.where)
  }
  const ofModel = own.find((one) => one.name === name)
  if (ofModel !== undefined) return made(ofModel.source, ofModel.where)
  if (Object.hasOwn(namedTemplates, name)) {
    const missing = neededTokens[name]?.filter((token) => !tokenizer.addedTokens.has(token)) ?? []
    if (missing.length > 0) {
      throw new LowrankError(
        'config',
        `chatTemplate: ${name} needs the tokens ${missing.join(' and ')}, which the tokenizer of ${model} does not have`,
        {
          hint: 'Take zephyr, mistral or alpaca, which end a turn with the end-of-sequence token, or a file (--chat-template FILE).',
        },
      )
    }
    return made(namedTemplates[name]!, `the template ${name}`)
  }
  const known = [...new Set([...own.map((one) => one.name), ...Object.keys(namedTemplates)])].join(', ')
  const source = await readText(name, {
    code: 'config',
    maxBytes: maxTemplateBytes,
    hint: `chatTemplate is a file, or one of ${known}.`,
  })
  return made(source, name)
}

/** The templates of a model by their names, that of most conversations as `default`; one that its adapter was trained with counts for more. */
export async function templatesOf(from: {
  readonly model: string
  readonly adapter?: string | undefined
}): Promise<ReadonlyMap<string, string>> {
  const own = await ownTemplates(from.model)
  const [first] = own
  const main = (await adapterTemplate(from.adapter))[0] ?? own.find(({ name }) => name === 'default') ?? first
  const named = own.map(({ name, source }) => [name, source] as const)
  return new Map([...named, ...(main === undefined ? [] : [['default', main.source] as const])])
}

/** SHA-256 of a named template, as hex. That of a template of the model is in the model's. */
export async function templateHash(name: string): Promise<string | undefined> {
  if (Object.hasOwn(namedTemplates, name)) return hashText(namedTemplates[name]!)
  return (await stat(name).catch(() => undefined))?.isFile() === true ? hashFile(name) : undefined
}

interface OwnTemplate {
  readonly name: string
  readonly source: string
  readonly where: string
}

/** What was saved with an adapter, where it was trained with another template than its model's. */
async function adapterTemplate(adapter: string | undefined): Promise<OwnTemplate[]> {
  if (adapter === undefined) return []
  const where = join(adapter, templateName)
  if (!(await stat(where).catch(() => undefined))?.isFile()) return []
  return [{ name: 'default', source: await readText(where, { code: 'adapter', maxBytes: maxTemplateBytes }), where }]
}

/** The templates of a model; a file of their own counts for more than tokenizer_config.json. */
async function ownTemplates(model: string): Promise<OwnTemplate[]> {
  const files = await openModelFiles(model)
  if (files.names.includes(templateName)) {
    const where = files.where(templateName)
    return [{ name: 'default', source: await files.text(templateName), where }]
  }
  if (!files.names.includes('tokenizer_config.json')) return []
  const { chat_template: entry }: JsonObject = await files.json('tokenizer_config.json')
  const where = `${files.where('tokenizer_config.json')}: chat_template`
  if (entry === undefined || entry === null) return []
  const entries: unknown[] = Array.isArray(entry) ? entry : [{ name: 'default', template: entry }]
  return entries.map((one) => {
    const { name, template: source } = isJsonObject(one) ? one : {}
    if (typeof name === 'string' && typeof source === 'string') return { name, source, where }
    throw new LowrankError('model', `${where}: a text, or a list of {"name", "template"} is expected`)
  })
}
