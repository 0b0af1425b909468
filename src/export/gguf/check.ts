import { conversionOf } from '../../formats/gguf/architectures.ts'
import type { Architecture } from '../../formats/gguf/architectures.ts'
import { openWeights } from '../../model/sources/checkpoint.ts'
import type { WeightSource } from '../../model/sources/source.ts'
import { loadTokenizer } from '../../text/tokenizer.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import { type ExportInput, using } from '../exporter.ts'
import { rowsOf } from '../rows.ts'
import { decode, encode, tensorName, typeOf } from './tensors.ts'

interface CheckOptions extends Pick<ExportInput, 'dtype' | 'cancelled'> {
  readonly architecture: Architecture
}

/**
 * Reads every weight of a file as Lowrank reads GGUF, by the names and in the order of the hub, and compares it with what was to be written:
 * equal, as its type rounds it.
 *
 * @returns how many there are
 */
export async function checkModelTensors(
  path: string,
  source: WeightSource,
  { architecture, dtype, cancelled }: CheckOptions,
): Promise<number> {
  return using(await openWeights(path), async (file) => {
    for (const spec of source.specs) {
      if (cancelled()) throw new LowrankError('cancelled', 'the export was cancelled')
      const type = typeOf(spec, source.config, dtype)
      const tensor = tensorName(architecture, source.config, spec.name)
      const { offset } = conversionOf(architecture, tensor)
      // A model of texts and images has the part for texts under another path.
      const name = spec.name.replace(`${source.config.trunk}.`, 'model.')
      const found = rowsOf(file, { ...spec, name })
      for await (const { data, start } of rowsOf(source, spec)) {
        const stored = decode(
          encode(offset === 0 ? data : data.map((one) => one + offset), { type, weight: name }),
          type,
        )
        const wanted = offset === 0 ? stored : stored.map((one) => one - offset)
        const { value } = await found.next()
        const at = value === undefined ? 0 : wanted.findIndex((one, i) => one !== value.data[i])
        if (value === undefined || at !== -1 || value.data.length !== wanted.length) {
          throw internalError(`${path}: tensor ${tensor} was written as something else, from row ${start} on`)
        }
      }
    }
    return source.specs.length
  })
}

/** Texts of all kinds: words, digits, signs, spaces, scripts, and the tokens of conversations. */
const hard = [
  "Hello, world! It's 12345 o'clock: I'VE got 3.14159 (pi).",
  'def f(x):\n    return {"a": [1, 2, 3], \'b\': x ** 2}  # comment\n\n\n',
  '  leading, trailing and   inner   spaces  \t\ttabs \n\n \n lines\r\n',
  'Привет, мир! Γειά σου Κόσμε. שלום עולם مرحبا بالعالم 你好,世界 こんにちは 안녕하세요 नमस्ते',
  'naïve café Ångström ﬁ Ⅷ ½ ² x̄ 🦙🚀👩‍👩‍👧‍👦🇩🇪 \u200b\u00a0\ufeffend',
  'CamelCaseWords ALLCAPS snake_case kebab-case http://example.org/path?x=1&y=2#z a@b.c',
  'aaaaaaaaaaaaaaaa 000000000000 ------------ ............ ============',
]

/**
 * Tokenizes hard texts as the file says and as the model's own tokenizer does.
 *
 * @returns how many texts there are
 * @throws LowrankError `internal`: the tokens of one differ.
 */
export async function checkTokens(path: string, model: string, cancelled: () => boolean): Promise<number> {
  const [own, written] = [await loadTokenizer(model, { cancelled }), await loadTokenizer(path, { cancelled })]
  try {
    const texts = [...hard, [...own.addedTokens.keys()].slice(0, 200).join('text')]
    const [wanted, found] = [await own.encode(texts), await written.encode(texts)]
    const other = texts.findIndex((_, i) => String(wanted[i]) !== String(found[i]))
    if (other !== -1) {
      throw internalError(
        `${path}: the tokens of ${JSON.stringify(texts[other]!.slice(0, 80))} are others than those of ${model}`,
      )
    }
    if (String([own.prefix, own.suffix, own.eosId]) !== String([written.prefix, written.suffix, written.eosId])) {
      throw internalError(`${path}: other tokens are put around a text than by ${model}`)
    }
    return texts.length
  } finally {
    own.close()
    written.close()
  }
}
