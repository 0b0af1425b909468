"""Compares merged models with their bases and adapters, loaded as any user of transformers and PEFT does; prints JSON.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 bitsandbytes accelerate
    python test/parity/merge.py --merged DIR --base DIR --adapter DIR:SCALE [--adapter ...] [--ids FILE] [--nf4]

    {"logits": largest absolute logit of base and adapters, "difference": largest difference of the merged model from them,
     "base": that of the base alone, "missing": weights that the merged folder lacks or has too many}

f32 on the CPU. --ids: a JSON list of token ids, by default 24 from 3 on. --nf4: the base as bitsandbytes quantizes it (nf4 with
double quantization), dequantized to f32.
"""

import argparse
import json

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def load_base(args):
    if not args.nf4:
        return AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32, attn_implementation="eager")
    from quantized import KINDS, to_dense

    config = BitsAndBytesConfig(**KINDS["nf4-nested"])
    model = AutoModelForCausalLM.from_pretrained(args.base, quantization_config=config, attn_implementation="eager")
    to_dense(model)
    return model


def load_adapted(args):
    """All adapters at once, each with its scaling multiplied."""
    model = load_base(args)
    scales = {}
    for i, given in enumerate(args.adapter):
        path, scale = given.rsplit(":", 1)
        scales[str(i)] = float(scale)
        if i == 0:
            model = PeftModel.from_pretrained(model, path, adapter_name="0")
        else:
            model.load_adapter(path, adapter_name=str(i))
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            for name in layer.scaling:
                layer.scaling[name] *= scales[name]
    if len(scales) > 1:
        model.base_model.set_adapter(list(scales))
    return model


@torch.no_grad()
def logits(model, ids):
    return model.eval()(input_ids=torch.tensor([ids])).logits[0].float()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--merged", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", action="append", required=True)
    parser.add_argument("--ids")
    parser.add_argument("--nf4", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    ids = list(range(3, 27))
    if args.ids:
        with open(args.ids) as file:
            ids = json.load(file)
    base = logits(load_base(args), ids)
    adapted = logits(load_adapted(args), ids)
    merged, info = AutoModelForCausalLM.from_pretrained(
        args.merged, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]]
    print(json.dumps({
        "logits": adapted.abs().max().item(),
        "difference": (logits(merged, ids) - adapted).abs().max().item(),
        "base": (base - adapted).abs().max().item(),
        "missing": wrong,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
