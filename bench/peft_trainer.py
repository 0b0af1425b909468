"""One epoch of LoRA the usual way: PEFT and transformers' Trainer on the CPU. Prints times, memory and eval loss as JSON.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0
    python bench/peft_trainer.py --model DIR --train train.jsonl --valid valid.jsonl \
        [--bf16] [--dtype bfloat16] [--threads 2] [--output DIR] [--seed 42]

--bf16 is bf16=True of TrainingArguments (f32 weights under autocast); --dtype bfloat16 loads the base in bf16. Batches are
padded to their longest row and the prompt is masked. evalLoss is measured in f32 on the trained adapter, whatever it was
trained in: nats, the mean over all label tokens. trainSeconds is trainer.train() alone; totalSeconds is the process without
that evaluation; peakMemory is the highest resident set until the end of training, in bytes.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

start = time.perf_counter()
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, Trainer, TrainingArguments

sys.path.append(str(Path(__file__).parents[1] / "test" / "parity"))
from examples import collate, evaluate, read_examples


def main():
    parser = argparse.ArgumentParser()
    for name in ["model", "train", "valid"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--output", help="folder for the trained adapter")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    train = [e for e in read_examples(args.train, tokenizer, args.max_length) if e is not None]
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype))
    config = LoraConfig(
        r=32, lora_alpha=64, target_modules=["q_proj", "v_proj"], lora_dropout=0.05, bias="none", task_type="CAUSAL_LM"
    )  # fmt: skip
    model = get_peft_model(base, config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=4,
                num_train_epochs=1,
                learning_rate=2e-4,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                remove_unused_columns=False,
                use_cpu=True,
                bf16=args.bf16,
                seed=args.seed,
                disable_tqdm=True,
            ),
            train_dataset=train,
            data_collator=lambda rows: collate(rows, tokenizer.pad_token_id or 0),
        )
        trainer.remove_callback(PrinterCallback)  # it prints to standard output
        before = time.perf_counter()
        trainer.train()
    trained = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    adapter = args.output or tempfile.mkdtemp()
    model.save_pretrained(adapter)
    total = time.perf_counter() - start

    # Loaded afresh: after bf16=True the forward of the trained model stays wrapped in autocast.
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    trained_model = PeftModel.from_pretrained(base, adapter)
    result = evaluate(trained_model, read_examples(args.valid, tokenizer, args.max_length))
    if not args.output:
        shutil.rmtree(adapter)
    print(json.dumps({
        "trainSeconds": trained - before,
        "totalSeconds": total,
        "evalLoss": result["loss"],
        "tokenAccuracy": result["tokenAccuracy"],
        "peakMemory": peak,
        "steps": trainer.state.global_step,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
