import type { Exporter } from './exporter.ts'
import type { ExportForm } from './forms.ts'
import { ggufLora } from './gguf/lora.ts'
import { gguf } from './gguf/model.ts'
import { mlx } from './mlx.ts'
import { ollama } from './ollama/index.ts'
import { onnx } from './onnx/index.ts'
import { peft } from './peft.ts'

/** What writes and checks each form. A whole model as safetensors is what `merge` writes. */
export const exporters: Readonly<Record<Exclude<ExportForm, 'merged'>, Exporter>> = {
  peft,
  gguf,
  'gguf-lora': ggufLora,
  mlx,
  ollama,
  onnx,
}
