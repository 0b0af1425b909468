"""Loads a model and an adapter as any user of PEFT does and prints {loss, tokenAccuracy, labelTokens, examples} as JSON.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python test/parity/peft_eval.py --model DIR --data valid.jsonl [--adapter DIR] [--max-length 512] [--threads 2]

f32 on the CPU; the loss is in nats, the mean over all label tokens of the file.
"""

import argparse
import json

import torch
from examples import evaluate, read_examples
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager")
    if args.adapter:
        model = PeftModel.from_pretrained(model, args.adapter)
    examples = read_examples(args.data, AutoTokenizer.from_pretrained(args.model), args.max_length)
    print(json.dumps(evaluate(model, examples)))


if __name__ == "__main__":
    main()
