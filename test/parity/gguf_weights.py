"""The weights of a GGUF file, from the gguf package: gguf_weights.py FILE prints {name in the hub model: SHA-256 of its f32 values}."""

import hashlib
import json
import sys

import numpy as np
from gguf import GGUFReader, dequantize

NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

reader = GGUFReader(sys.argv[1])
read = lambda key: reader.fields[key].contents()
architecture = read("general.architecture")
if architecture.startswith("gemma"):
    NAMES["ffn_norm"] = "pre_feedforward_layernorm"
if architecture == "phi3":
    NAMES["ffn_up"] = "mlp.gate_up_proj"
heads = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}

hashes = {}
for tensor in reader.tensors:
    *block, module, kind = tensor.name.split(".")
    if module.startswith("rope_"):
        continue
    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    values = values.reshape([int(size) for size in reversed(tensor.shape)])
    if architecture in ("llama", "smollm3", "granite") and module in heads:
        count = read(f"{architecture}.{heads[module]}")
        values = values.reshape(count, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if architecture.startswith("gemma") and module.endswith("norm"):
        values = values - np.float32(1)
    name = f"model.layers.{block[1]}.{NAMES[module]}.{kind}" if block else f"{OUTER[module]}.{kind}"
    hashes[name] = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
print(json.dumps(hashes))
