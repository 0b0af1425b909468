"""Trains an adapter with PEFT, in f32 on the CPU, on exactly the batches it is told, and prints the curve as JSON.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python test/parity/peft_train.py --model DIR --adapter DIR --data train.jsonl --steps steps.json \
        --learning-rate 2e-4 --threads 2 [--warmup-steps 0] [--weight-decay 0.01] [--max-grad-norm 1.0] [--save DIR]

steps.json is [[[line, ...], ...], ...]: optimizer steps, of micro-batches, of example lines of the JSONL counted from 0.
The optimizer is one group of torch.optim.AdamW (betas 0.9 and 0.999), the schedule linear over the given steps. Output:
{"loss": [...], "gradNorm": [...], "lr": [...], "labelTokens": [...]}, an entry a step; loss is the sum over all label
tokens of the step divided by their number.
"""

import argparse
import json

import torch
from examples import collate, label_logits, read_examples
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup


def main():
    parser = argparse.ArgumentParser()
    for name in ["model", "adapter", "data", "steps"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--warmup-steps", type=int, default=0)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--adam-epsilon", type=float, default=1e-8)
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", help="folder for the trained adapter")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, args.adapter, is_trainable=True).train()
    examples = read_examples(args.data, AutoTokenizer.from_pretrained(args.model), args.max_length)
    with open(args.steps) as file:
        steps = json.load(file)

    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=args.learning_rate, eps=args.adam_epsilon, weight_decay=args.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, args.warmup_steps, len(steps))
    curve = {"loss": [], "gradNorm": [], "lr": [], "labelTokens": []}
    for step in steps:
        batches = [collate([examples[line] for line in micro]) for micro in step]
        count = sum((batch["labels"][:, 1:] != -100).sum().item() for batch in batches)
        total = 0.0
        for batch in batches:
            logits, labels = label_logits(model, batch)
            loss = cross_entropy(logits, labels, reduction="sum") / count
            loss.backward()
            total += loss.item()
        curve["loss"].append(total)
        curve["labelTokens"].append(count)
        curve["gradNorm"].append(torch.nn.utils.clip_grad_norm_(params, args.max_grad_norm).item())
        curve["lr"].append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    if args.save:
        model.save_pretrained(args.save)
    print(json.dumps(curve))


if __name__ == "__main__":
    main()
