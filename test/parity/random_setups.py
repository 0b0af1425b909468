"""Trains with PyTorch and PEFT what `random.ts` asks for: a JSON line in, a JSON line out, until the input ends.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 bitsandbytes==0.50.2 accelerate==1.15.0

    {"task": "make", "folder", "config", "dtype", "seed"}        a random Llama as the hub has it -> {}
    {"task": "train", "model", "adapter", "quantization", "data", "maxLength", "steps", "arguments", "loraPlus"}
                                                                 -> {"loss": [...], "gradNorm": [...]}

`adapter` is a folder that PEFT loads to train it further, or null: every weight is trained. `quantization` is null, {"kind": "8bit"} or
{"kind": "4bit", "quantType", "doubleQuant", "blockSize"}: the linear layers of the blocks are what bitsandbytes makes of them, dequantized
to f32, since its own products on the CPU are bf16 where the processor has that. `steps` is [[[line, ...], ...], ...]: optimizer steps, of
micro-batches, of example lines counted from 0. `arguments` are TrainingArguments, from which transformers' Trainer makes optimizer,
groups and schedule. Losses are those of f32 on the CPU, without dropout.
"""

import json
import os
import sys
import traceback

os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT would look the base model up on the hub
import bitsandbytes.functional as F
import torch
import transformers
from bitsandbytes.nn import Int8Params
from examples import collate, read_examples
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother


def make(folder, config, dtype, seed):
    """Random weights far from the usual small init: attention is not flat, logits are not uniform, biases and norms matter."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**config))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif name.endswith("bias") or "embed_tokens" in name or "lm_head" in name:
                p.copy_(0.25 * torch.randn_like(p))
            else:
                p.copy_(1.2 * p.shape[1] ** -0.5 * torch.randn_like(p))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return {}


def dequantized(w, quantization):
    """What a matrix in the dtype of its checkpoint becomes, f32."""
    if quantization["kind"] == "8bit":
        p = Int8Params(w, requires_grad=False).to("cpu")
        return F.int8_vectorwise_dequant(p.CB, p.SCB)
    # In one dimension: of a matrix whose rows are not whole blocks, the kernel for the CPU mistakes the scales.
    codes, state = F.quantize_4bit(
        w.reshape(-1),
        blocksize=quantization["blockSize"],
        quant_type=quantization["quantType"],
        compress_statistics=quantization["doubleQuant"],
    )
    state.dtype = torch.float32
    return F.dequantize_4bit(codes, state).view(w.shape)


def load_base(folder, quantization):
    load = lambda dtype: AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    model = load(torch.float32)
    if quantization is None:
        return model
    stored = load("auto")
    with torch.no_grad():
        for name, module in model.model.layers.named_modules():
            if isinstance(module, torch.nn.Linear):
                w = stored.model.layers.get_submodule(name).weight.detach()
                module.weight.copy_(dequantized(w, quantization))
    return model


def loss_of(model, batch, count, smoothing):
    """The part of a micro-batch in the mean over the `count` labels of its step."""
    labels = batch["labels"]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    if smoothing > 0:
        smoother = LabelSmoother(epsilon=smoothing)
        return smoother({"logits": logits}, labels, shift_labels=True, num_items_in_batch=count)
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / count


def train(model, adapter, quantization, data, maxLength, steps, arguments, loraPlus):
    examples = read_examples(data, AutoTokenizer.from_pretrained(model), maxLength)
    net = load_base(model, quantization)
    if adapter is not None:
        net = PeftModel.from_pretrained(net, adapter, is_trainable=True)
    args = TrainingArguments("unused", **arguments, use_cpu=True, report_to="none", max_steps=len(steps))
    trainer = Trainer(model=net, args=args)
    if loraPlus is None:
        trainer.create_optimizer()
    else:
        cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, net)
        plus = {"loraplus_lr_ratio": loraPlus, "loraplus_weight_decay": args.weight_decay}
        trainer.optimizer = create_loraplus_optimizer(net, cls, **{**kwargs, **plus})
    optimizer, schedule = trainer.optimizer, trainer.create_scheduler(len(steps))
    params = [p for p in net.parameters() if p.requires_grad]
    net.train()
    found = {"loss": [], "gradNorm": []}
    for step in steps:
        batches = [collate([examples[line] for line in micro]) for micro in step]
        count = sum((batch["labels"][:, 1:] != -100).sum() for batch in batches)
        optimizer.zero_grad()
        total = 0.0
        for batch in batches:
            loss = loss_of(net, batch, count, args.label_smoothing_factor)
            loss.backward()
            total += loss.item()
        found["loss"].append(total)
        # 0 switches clipping off, in Trainer too.
        limit = args.max_grad_norm if args.max_grad_norm > 0 else float("inf")
        found["gradNorm"].append(torch.nn.utils.clip_grad_norm_(params, limit).item())
        optimizer.step()
        schedule.step()
    return found


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    # What libraries print must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    tasks = {"make": make, "train": train}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = tasks[request.pop("task")](**request)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


main()
