"""Prompt/completion examples as Lowrank reads them; shared by the scripts beside this file and by bench/.

Versions: torch 2.13.0, transformers 5.23.0.
"""

import json

import torch


def read_examples(path, tokenizer, max_length):
    """One {ids, labels} per line of a JSONL file; None where no label is left, so that line numbers stay indices.

    ids = bos (where the tokenizer adds one) + prompt + completion + eos, cut at the end to max_length; labels are the
    completion and eos, -100 elsewhere.
    """
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    tokens = lambda text: tokenizer(text, add_special_tokens=False).input_ids
    examples = []
    with open(path, encoding="utf-8") as file:
        for line in filter(str.strip, file):
            row = json.loads(line)
            prompt = [tokenizer.bos_token_id] * adds_bos + tokens(row["prompt"])
            completion = tokens(row["completion"]) + [tokenizer.eos_token_id]
            ids = (prompt + completion)[:max_length]
            labels = ([-100] * len(prompt) + completion)[:max_length]
            examples.append({"ids": ids, "labels": labels} if len(ids) > len(prompt) else None)
    return examples


def collate(examples, pad=0):
    """Right-padded tensors to the longest: input_ids, attention_mask, labels (-100: none), each [rows, longest]."""
    width = max(len(e["ids"]) for e in examples)
    fill = lambda values, value: values + [value] * (width - len(values))
    return {
        "input_ids": torch.tensor([fill(e["ids"], pad) for e in examples]),
        "attention_mask": torch.tensor([fill([1] * len(e["ids"]), 0) for e in examples]),
        "labels": torch.tensor([fill(e["labels"], -100) for e in examples]),
    }


def label_logits(model, batch):
    """Logits [label tokens, vocab], f32, at the positions that predict a label, and those labels."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    keep = labels != -100
    return logits[keep].float(), labels[keep]


@torch.no_grad()
def evaluate(model, examples, batch_size=4):
    """Loss in nats per label token and the share of label tokens that the argmax gets right, over all examples."""
    model.eval()
    kept = [e for e in examples if e is not None]
    loss = correct = count = 0
    for start in range(0, len(kept), batch_size):
        logits, labels = label_logits(model, collate(kept[start : start + batch_size]))
        loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(-1) == labels).sum().item()
        count += len(labels)
    return {"loss": loss / count, "tokenAccuracy": correct / count, "labelTokens": count, "examples": len(kept)}
