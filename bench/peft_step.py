"""Time and memory of one LoRA step in PEFT (forward, backward, AdamW) on the CPU. Prints JSON.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python bench/peft_step.py --model DIR [--dtype float32|bfloat16] [--steps 5] [--threads 2] [--batch 4] [--length 256]
        [--labels N]

Random ids, labels on the second half of each row or its last N tokens, r 32 on q_proj and v_proj, no dropout, the base loaded in the dtype given
(with random weights where the folder has a config.json alone).
seconds is the median after two steps of warm-up; peakMemory the highest resident set in bytes.
"""

import argparse
import glob
import json
import resource
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

WARMUP = 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--labels", type=int)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    if glob.glob(f"{args.model}/*.safetensors"):
        base = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    else:
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.model), dtype=dtype)
    config = LoraConfig(r=32, lora_alpha=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    times = []
    for _ in range(WARMUP + args.steps):
        ids = torch.randint(3, base.config.vocab_size, (args.batch, args.length))
        labels = ids.clone()
        labels[:, : args.length - (args.labels or args.length - args.length // 2)] = -100
        start = time.perf_counter()
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    print(json.dumps({
        "dtype": args.dtype,
        "seconds": statistics.median(times[WARMUP:]),
        "times": times,
        "peakMemory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
