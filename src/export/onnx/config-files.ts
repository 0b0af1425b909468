import { editJson } from '../../formats/json-edit.ts'
import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { openModelFiles } from '../../formats/model-files.ts'
import { readSmallFiles } from '../../formats/model-folder.ts'
import { untied } from '../../model/config.ts'
import type { DecoderConfig, FamilyName } from '../../model/decoder.ts'
import { tokenizerFiles } from '../../text/tokenizer.ts'
import { cacheNames } from './decoder.ts'

/** What is said of a model in the files beside it. */
export interface Described {
  readonly config: DecoderConfig
  /** Name of its file, within its folder. */
  readonly file: string
  /** The dtype that transformers.js knows it by. */
  readonly dtype: string
  /** How many files its weights are in. */
  readonly dataFiles: number
}

const generationName = 'generation_config.json'

/**
 * The small files of an exported model, by their names, with notes on what was left out: config.json with what transformers.js wants to know,
 * genai_config.json for onnxruntime-genai, and tokenizer and defaults as model and adapter have them.
 */
export async function configFiles(
  { model, adapter }: { readonly model: string; readonly adapter: string | undefined },
  described: Described,
): Promise<{ readonly files: ReadonlyMap<string, string | Uint8Array>; readonly notes: readonly string[] }> {
  const given = await openModelFiles(model)
  const { files: own, leftOut } = await given.small([...tokenizerFiles, generationName])
  const files = new Map<string, string | Uint8Array>(own)
  const trained = adapter === undefined ? undefined : (await readSmallFiles(adapter, tokenizerFiles)).files
  if (trained?.has('tokenizer.json')) for (const [name, bytes] of trained) files.set(name, bytes)
  withTemplate(files)
  const json = await given.json('config.json')
  const generation = given.names.includes(generationName) ? await given.json(generationName) : endsOf(json)
  if (!files.has(generationName)) files.set(generationName, toText(generation))
  files.set('genai_config.json', toText(genaiConfig(described, { ...endsOf(json), ...generation })))
  files.set('config.json', configText(await given.text('config.json'), described))
  const notes =
    described.config.trunk === 'model' ? [] : ['only the part for texts is written: what sees images is not']
  return { files, notes: [...leftOut, ...notes] }
}

function toText(json: object): string {
  return `${JSON.stringify(json, null, 2)}\n`
}

/** Programs that do not know a file for the template read it in tokenizer_config.json, where transformers once had it. */
function withTemplate(files: Map<string, string | Uint8Array>): void {
  const [template, config] = ['chat_template.jinja', 'tokenizer_config.json'].map((name) => files.get(name))
  if (template === undefined || config === undefined) return
  const changes = { chat_template: Buffer.from(template).toString() }
  files.set('tokenizer_config.json', editJson(Buffer.from(config).toString(), changes))
}

/** Ids that begin, end and fill texts, of a config.json. */
function endsOf(json: JsonObject): JsonObject {
  const inner = isJsonObject(json['text_config']) ? json['text_config'] : {}
  const entries = ['bos_token_id', 'eos_token_id', 'pad_token_id'].map((key) => [key, json[key] ?? inner[key]])
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null)) as JsonObject
}

/** A config.json for float weights in ONNX. The part for texts of a larger model is described as a model of texts. */
function configText(text: string, { config, file, dtype, dataFiles }: Described): string {
  const json = JSON.parse(text) as JsonObject
  const inner = json['text_config']
  const isPart = config.trunk !== 'model' && isJsonObject(inner)
  const own = isPart ? toText({ ...inner, ...endsOf(json), ...textModel }) : text
  const edited = editJson(own, {
    quantization_config: undefined,
    // Where a family has defaults for these, transformers.js does not know them.
    num_hidden_layers: config.numHiddenLayers,
    num_attention_heads: config.numAttentionHeads,
    num_key_value_heads: config.numKeyValueHeads,
    head_dim: config.headDim,
    hidden_size: config.hiddenSize,
    vocab_size: config.vocabSize,
    'transformers.js_config': { dtype, use_external_data_format: { [file]: dataFiles } },
  })
  return config.tieWordEmbeddings ? edited : untied(edited)
}

const textModel = { model_type: 'gemma3_text', architectures: ['Gemma3ForCausalLM'] }

/** What onnxruntime-genai calls a decoder whose graph does all by itself. */
const genaiTypes: Readonly<Record<FamilyName, string>> = {
  llama: 'llama',
  mistral: 'mistral',
  qwen2: 'qwen2',
  qwen3: 'qwen3',
  gemma2: 'gemma2',
  gemma3_text: 'gemma3_text',
  gemma3: 'gemma3_text',
  phi3: 'phi3',
  smollm3: 'smollm3',
  olmo2: 'olmo',
  granite: 'granite',
}

/** genai_config.json: https://onnxruntime.ai/docs/genai/reference/config.html. The cache grows by each step, in a new buffer. */
function genaiConfig({ config, file }: Described, generation: JsonObject): object {
  const value = (key: string, otherwise: unknown): unknown => generation[key] ?? otherwise
  const names = (of: 'past' | 'present', kind: 'key' | 'value'): string =>
    cacheNames(0, kind)[of].replace('.0.', '.%d.')
  const [end] = [generation['eos_token_id']].flat()
  return {
    model: {
      ...(generation['bos_token_id'] === undefined ? {} : { bos_token_id: generation['bos_token_id'] }),
      context_length: config.maxPositionEmbeddings,
      decoder: {
        session_options: { log_id: 'onnxruntime-genai', provider_options: [] },
        filename: `onnx/${file}`,
        head_size: config.headDim,
        hidden_size: config.hiddenSize,
        inputs: {
          input_ids: 'input_ids',
          attention_mask: 'attention_mask',
          position_ids: 'position_ids',
          past_key_names: names('past', 'key'),
          past_value_names: names('past', 'value'),
        },
        outputs: {
          logits: 'logits',
          present_key_names: names('present', 'key'),
          present_value_names: names('present', 'value'),
        },
        num_attention_heads: config.numAttentionHeads,
        num_hidden_layers: config.numHiddenLayers,
        num_key_value_heads: config.numKeyValueHeads,
      },
      eos_token_id: value('eos_token_id', undefined),
      pad_token_id: value('pad_token_id', end),
      type: genaiTypes[config.modelType],
      vocab_size: config.vocabSize,
    },
    search: {
      do_sample: value('do_sample', false),
      early_stopping: true,
      max_length: config.maxPositionEmbeddings,
      min_length: 0,
      num_beams: 1,
      num_return_sequences: 1,
      past_present_share_buffer: false,
      repetition_penalty: value('repetition_penalty', 1),
      temperature: value('temperature', 1),
      top_k: value('top_k', 50),
      top_p: value('top_p', 1),
    },
  }
}
