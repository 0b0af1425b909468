"""Greedy generation by transformers and PEFT, in f32.

    pip install torch==2.13.0 transformers==5.24.0 peft==0.21.2
    python test/parity/generate.py adapter --model DIR --output DIR
    python test/parity/generate.py run --model DIR [--adapter DIR] --prompts prompts.json --tokens 64 --output DIR

adapter    writes a random adapter of rank 16 on all linear layers, as PEFT saves one.
run        continues each of the prompts [[ids]] alone, with transformers' cache, and prints {alone, batched}: the new tokens of each, and
           those that come of all in one batch, padded on the left. For each prompt DIR/<number>.f32 has the logits that the tokens were
           taken from, [tokens, vocabulary]. End tokens end nothing.
"""

import argparse
import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging


def load(args):
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def adapter(args):
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(load(args), config)
    for name, parameter in model.named_parameters():
        # Strong enough to change the texts, and weak enough for them to stay texts.
        if "lora_B" in name:
            parameter.data *= 0.02
    model.save_pretrained(args.output)
    return {}


@torch.no_grad()
def run(args):
    model = load(args)
    if args.adapter:
        model = PeftModel.from_pretrained(model, args.adapter)
    with open(args.prompts) as file:
        prompts = json.load(file)
    model.generation_config.eos_token_id = None
    options = dict(max_new_tokens=args.tokens, do_sample=False, pad_token_id=0)
    alone = []
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), output_logits=True, return_dict_in_generate=True, **options)
        alone.append(out.sequences[0, len(prompt) :].tolist())
        torch.cat(out.logits).float().numpy().tofile(os.path.join(args.output, f"{i}.f32"))
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    batched = model.generate(input_ids=ids, attention_mask=mask, **options)[:, longest:].tolist()
    return {"alone": alone, "batched": batched}


def main():
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["adapter", "run"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--prompts")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    print(json.dumps(adapter(args) if args.task == "adapter" else run(args)))


if __name__ == "__main__":
    main()
