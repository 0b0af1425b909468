"""Quantized checkpoints in transformers + bitsandbytes, on the CPU.

    pip install torch==2.13.0 transformers==5.23.0 bitsandbytes==0.50.2 accelerate==1.15.0
    python test/parity/quantized.py save --model DIR --kind nf4|nf4-nested|fp4|int8 --output DIR
    python test/parity/quantized.py load --model DIR --examples examples.json

save    quantizes a model as any user does and saves it. One thread: the mean of the scales depends on it in the last bit.
load    loads a quantized folder as any user does and prints {weights, loss}: the SHA-256 of every quantized weight,
        dequantized to f32, and the loss over the examples, [{ids, labels}] with -100 for none.

Losses are those of f32: layers are replaced by dense ones with what bitsandbytes dequantizes. Its own products on the CPU are
bf16 where the processor has that, and a weight remembers the dtype it had and is dequantized to that, unless f32 is put
there. Its kernels take the scales by rows, which is wrong where a row is no whole number of blocks: as flat lists it is right.
"""

import argparse
import hashlib
import json

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
from examples import evaluate
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

KINDS = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4-nested": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": dict(load_in_8bit=True),
}


def save(args):
    torch.set_num_threads(1)
    config = BitsAndBytesConfig(**KINDS[args.kind])
    AutoModelForCausalLM.from_pretrained(args.model, quantization_config=config).save_pretrained(args.output)
    return {}


def dequantize(module):
    if isinstance(module, bnb.nn.Linear8bitLt):
        return F.int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
    state = module.weight.quant_state
    state.dtype, shape = torch.float32, state.shape
    state.shape = torch.Size([shape.numel()])
    dense = F.dequantize_4bit(module.weight.data, state).view(shape)
    state.shape = shape
    return dense


@torch.no_grad()
def to_dense(model):
    """Replaces quantized layers by dense ones of what bitsandbytes dequantizes, before any of them has computed; hashes by name."""
    for parameter in model.parameters():  # a quantized model refuses .float(), and dtype= changes nothing
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    for module in model.modules():  # rounded to bf16 as the model was made, which a model in f32 does not do
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float32)
    weights = {}
    for name, module in list(model.named_modules()):
        if not isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)):
            continue
        dense = dequantize(module)
        assert dense.dtype == torch.float32
        # Code 8 of fp4 is 0 on processors with AVX-512, and -0 on others.
        weights[f"{name}.weight"] = hashlib.sha256((dense.contiguous() + 0.0).numpy().tobytes()).hexdigest()
        linear = torch.nn.Linear(dense.shape[1], dense.shape[0], bias=module.bias is not None)
        linear.weight.copy_(dense)
        if module.bias is not None:
            linear.bias.copy_(module.bias)
        model.set_submodule(name, linear)
    return weights


def load(args):
    model = AutoModelForCausalLM.from_pretrained(args.model, attn_implementation="eager")
    weights = to_dense(model)
    with open(args.examples) as file:
        return {"weights": weights, "loss": evaluate(model, json.load(file))["loss"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["save", "load"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--output")
    parser.add_argument("--examples")
    args = parser.parse_args()
    print(json.dumps(save(args) if args.task == "save" else load(args)))


if __name__ == "__main__":
    main()
