"""Golden values from PyTorch for weights in FP8.

    pip install torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 accelerate
    python test/golden/make_fp8_golden.py       # rewrites fp8/ beside this file

    numbers.safetensors     e4m3, e5m2: the 256 numbers of each dtype, and as f32: e4m3.f32, e5m2.f32.
    edges.safetensors       weight [20, 13] with weight_scale_inv for blocks of 8 x 4, those at the edges cut, and f32: their products.
    config.json, model.safetensors     a tiny Llama with weights in FP8 in blocks of 16 x 16, scales in f32 and (layer 1) bf16
    expected.safetensors    its weights as transformers dequantizes them to f32
"""

import json
import os

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fp8")
DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def numbers():
    found = {}
    for name, dtype in DTYPES.items():
        found[name] = torch.arange(256, dtype=torch.uint8).view(dtype)
        found[f"{name}.f32"] = found[name].to(torch.float32)
    save_file(found, f"{HERE}/numbers.safetensors")


def quantized(weight, block, scale_dtype=torch.float32):
    """(numbers in FP8, scales): the largest of a block becomes the largest number of E4M3."""
    rows, columns = (-(-size // side) for size, side in zip(weight.shape, block))
    scales = torch.empty(rows, columns)
    codes = torch.empty_like(weight)
    for i in range(rows):
        for j in range(columns):
            place = (slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1]))
            scales[i, j] = (weight[place].abs().max() / 448).to(scale_dtype)
            codes[place] = weight[place] / scales[i, j]
    return codes.clamp(-448, 448).to(torch.float8_e4m3fn), scales.to(scale_dtype)


def edges():
    codes, scales = quantized(torch.randn(20, 13), (8, 4))
    spread = scales.repeat_interleave(8, 0).repeat_interleave(4, 1)[:20, :13]
    save_file({"weight": codes, "weight_scale_inv": scales, "f32": codes.to(torch.float32) * spread}, f"{HERE}/edges.safetensors")


def model():
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, vocab_size=16,
        max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    tensors = {}
    for name, tensor in LlamaForCausalLM(config).to(torch.bfloat16).state_dict().items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor
            continue
        scale_dtype = torch.bfloat16 if ".layers.1." in name else torch.float32
        tensors[name], tensors[f"{name}_scale_inv"] = quantized(tensor.to(torch.float32), (16, 16), scale_dtype)
    save_file(tensors, f"{HERE}/model.safetensors", {"format": "pt"})
    about = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "modules_to_not_convert": ["lm_head"], "quant_method": "fp8",
        "weight_block_size": [16, 16],
    }  # fmt: skip
    with open(f"{HERE}/config.json", "w") as file:
        json.dump({**config.to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "quantization_config": about}, file)
        file.write("\n")
    loaded = AutoModelForCausalLM.from_pretrained(HERE, dtype=torch.float32)
    save_file({name: tensor.to(torch.float32) for name, tensor in loaded.state_dict().items()}, f"{HERE}/expected.safetensors")


if __name__ == "__main__":
    torch.manual_seed(1)
    os.makedirs(HERE, exist_ok=True)
    numbers()
    edges()
    model()
