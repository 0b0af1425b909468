import { existsSync } from 'node:fs'
import { stringify } from 'yaml'
import { parseHubName } from '../../util/hub-name.ts'
import type { BaseModel } from './adapter-config.ts'
import type { LoraConfig } from './targets.ts'

export const cardName = 'README.md'

/** What the model card says besides the configuration of the adapter. */
export interface AdapterCard {
  /** How it was trained, as rows of a table: `['Training examples', 1200]`. */
  readonly facts: readonly (readonly [string, string | number])[]
}

/** README.md of an adapter folder: front matter that the Hugging Face hub reads, what it is, how to load it. */
export function modelCard(config: LoraConfig, base: BaseModel, { facts }: AdapterCard): string {
  const { name: baseModel, revision } = base
  const onHub = isHubName(baseModel)
  const frontMatter = stringify({
    // The hub refuses a card whose base model is a path.
    ...(onHub ? { base_model: baseModel } : {}),
    library_name: 'peft',
    pipeline_tag: 'text-generation',
    tags: [...(onHub ? [`base_model:adapter:${baseModel}`] : []), 'lora', 'lowrank'],
  })
  const rows = [
    ['Rank (r)', config.r],
    ['Alpha', `${config.loraAlpha}${config.useRslora ? ', rank-stabilized' : ''}`],
    ['Adapted modules', [config.targetModules].flat().join(', ')],
    ['Dropout', config.loraDropout],
    ['Biases trained', config.bias],
    ...(config.modulesToSave?.length ? [['Modules trained in full', config.modulesToSave.join(', ')]] : []),
    ...facts,
  ]
  const name = baseModel.split(/[/\\]/).findLast((part) => part !== '') ?? baseModel
  return `---
${frontMatter}---

# LoRA adapter for ${heading(name)}

A LoRA adapter for the language model ${code(baseModel)}: small matrices that are added to its frozen weights, made by
fine-tuning with lowrank. It needs the base model to run.

## How it was trained

| | |
| --- | --- |
${rows.map((row) => `| ${row.map(cell).join(' | ')} |`).join('\n')}

## How to use it

In Python, with \`transformers\` and \`peft\`:

\`\`\`python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

adapter = "path/to/this/folder"
model = AutoModelForCausalLM.from_pretrained(${JSON.stringify(baseModel)}${revision === undefined ? '' : `, revision=${JSON.stringify(revision)}`})
model = PeftModel.from_pretrained(model, adapter)
tokenizer = AutoTokenizer.from_pretrained(adapter)
\`\`\`

With lowrank:

\`\`\`sh
npx lowrank eval --model ${onHub ? revisionOf(base) : 'path/to/the/base/model'} --adapter path/to/this/folder --data valid.jsonl
\`\`\`
`
}

/** A folder of this machine may look like a name on the hub: `models/tiny`. */
function isHubName(baseModel: string): boolean {
  if (existsSync(baseModel)) return false
  const parsed = parseHubName(baseModel)
  return parsed !== undefined && parsed.revision === undefined
}

function revisionOf({ name, revision }: BaseModel): string {
  return revision === undefined ? name : `${name}@${revision}`
}

function cell(value: string | number | undefined): string {
  return String(value ?? '')
    .replace(/[|\\]/g, '\\$&')
    .replace(/\s+/g, ' ')
}

function heading(text: string): string {
  return text.replace(/\s+/g, ' ').replace(/[\\`*_[\]<>#&]/g, '\\$&')
}

function code(text: string): string {
  return `\`${text.replaceAll('`', "'")}\``
}
