"""Golden curves from PyTorch for optimizers, LoRA+, label smoothing and NEFTune (the tests need no Python).

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors==0.8.0 accelerate
    python test/golden/make_training_curves.py        # rewrites training-curves/ beside this file

The models, adapters and inputs of make_golden.py, after which this is run. Optimizers are made by transformers' Trainer, or by PEFT's
create_loraplus_optimizer; schedules by transformers' get_scheduler; smoothed losses by transformers' LabelSmoother.

    training-curves/golden.json           versions; runs: model and adapter, the options as TrainingArguments and PEFT call them, and of
                                          each of STEPS steps the loss, the gradient norm before clipping, the learning rate
    training-curves/golden.safetensors    <case>.gradients: every STRIDE-th value of all gradients of batch 0, in the order of sorted names
                                          one after the other; <case>.scales: the largest magnitude of each. Cases are those in golden.json
                                          under "gradients", with the loss: a smoothed one, or one with noise on the embeddings

The noise of a NEFTune case is no random one: of example i it is 2 alpha / sqrt(tokens * hidden) * uniform(tokens * hidden, i), in the order
[tokens, hidden], and none on padding.
"""

import json
import os

import torch
import transformers
from make_golden import collate, load_adapter, load_base, trainables, versions
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother
from uniform import uniform

STEPS, STRIDE, ALPHA = 20, 7, 5.0
COMMON = {"max_grad_norm": 1.0, "warmup_steps": 3, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "weight_decay": 0.01}
SGD = {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 0.05, "lr_scheduler_type": "cosine"}
NESTEROV = {"optim": "sgd", "optim_args": "momentum=0.8,nesterov=True", "learning_rate": 0.05, "lr_scheduler_type": "constant_with_warmup"}
PLUS = {"optim": "adamw_torch", "learning_rate": 1e-3, "lr_scheduler_type": "linear", "loraplus_lr_ratio": 16}
SMOOTH = {"optim": "adamw_torch", "learning_rate": 2e-3, "lr_scheduler_type": "inverse_sqrt", "label_smoothing_factor": 0.1}
WSD = {
    "optim": "adamw_torch",
    "learning_rate": 3e-3,
    "lr_scheduler_type": "warmup_stable_decay",
    "lr_scheduler_kwargs": {"num_decay_steps": 6, "decay_type": "1-sqrt"},
}
RUNS = [
    ("gqa-tied", "base", SGD),
    ("gqa-tied", "adapter", SGD),
    ("bias-untied", "base", NESTEROV),
    ("bias-untied", "adapter", NESTEROV),
    ("gqa-tied", "adapter", PLUS),
    ("bias-untied", "adapter", PLUS),
    ("bias-untied", "adapter", {**PLUS, "optim": "sgd", "optim_args": "momentum=0.9"}),
    ("gqa-tied", "base", SMOOTH),
    ("bias-untied", "adapter", {**SMOOTH, "label_smoothing_factor": 0.4}),
    ("bias-untied", "base", WSD),
    ("gqa-tied", "adapter-saved-head", {**WSD, "max_grad_norm": 0.3}),
]


def load(folder, adapter):
    return load_base(folder) if adapter == "base" else load_adapter(folder, adapter)


def loss_of(model, examples, smoothing=0.0, embeds=None):
    ids, attention, labels = collate(examples)
    inputs = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
    logits = model(**inputs, attention_mask=attention, use_cache=False).logits
    if smoothing == 0:
        return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    count = (labels[:, 1:] != -100).sum()
    return LabelSmoother(epsilon=smoothing)({"logits": logits}, labels, shift_labels=True, num_items_in_batch=count)


def noisy_embeds(model, examples):
    """The embedded tokens of a padded batch with the noise of this file."""
    embeds = model.get_input_embeddings()(collate(examples)[0])
    noise = torch.zeros_like(embeds)
    for i, example in enumerate(examples):
        count = len(example["ids"]) * embeds.shape[-1]
        values = 2 * ALPHA / count**0.5 * torch.from_numpy(uniform(count, i))
        noise[i, : len(example["ids"])] = values.view(-1, embeds.shape[-1])
    return embeds + noise


def arguments(options):
    given = {k: v for k, v in options.items() if k != "loraplus_lr_ratio"}
    return TrainingArguments("/tmp/unused", **given, use_cpu=True, report_to="none", max_steps=STEPS)


def curve(folder, adapter, options, batches):
    model = load(folder, adapter)
    args = arguments(options)
    trainer = Trainer(model=model, args=args)
    if "loraplus_lr_ratio" in options:
        cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
        plus = {"loraplus_lr_ratio": options["loraplus_lr_ratio"], "loraplus_weight_decay": args.weight_decay}
        trainer.optimizer = create_loraplus_optimizer(model, cls, **{**kwargs, **plus})
    else:
        trainer.create_optimizer()
    optimizer, schedule = trainer.optimizer, trainer.create_scheduler(STEPS)
    found = {"loss": [], "gradNorm": [], "learningRate": []}
    model.train()
    for step in range(STEPS):
        loss = loss_of(model, batches[step % len(batches)], args.label_smoothing_factor)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trainables(model).values(), args.max_grad_norm, error_if_nonfinite=True)
        found["loss"].append(loss.item())
        found["gradNorm"].append(norm.item())
        found["learningRate"].append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return {"model": folder, "adapter": adapter, "options": options, **found}


def gradients(folder, adapter, batch, *, smoothing=0.0, noisy=False):
    model = load(folder, adapter)
    loss = loss_of(model, batch, smoothing, noisy_embeds(model, batch) if noisy else None)
    loss.backward()
    found = [p.grad for _, p in sorted(trainables(model).items())]
    return loss.item(), {
        "gradients": torch.cat([g.view(-1) for g in found])[::STRIDE].clone(),
        "scales": torch.stack([g.abs().max() for g in found]),
    }


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    batches = {}
    for folder in ("gqa-tied", "bias-untied"):
        with open(f"{folder}/inputs.json") as f:
            batches[folder] = json.load(f)["batches"]
    runs = [curve(folder, adapter, {**COMMON, **options}, batches[folder]) for folder, adapter, options in RUNS]
    cases, tensors = [], {}
    for folder in batches:
        for adapter in ("base", "adapter"):
            for kind, how in {"smoothed": {"smoothing": 0.2}, "noisy": {"noisy": True}}.items():
                name = f"{folder}.{adapter}.{kind}"
                loss, found = gradients(folder, adapter, batches[folder][0], **how)
                cases.append({"name": name, "model": folder, "adapter": adapter, **how, "loss": loss})
                tensors |= {f"{name}.{part}": t for part, t in found.items()}
    os.makedirs("training-curves", exist_ok=True)
    save_file(tensors, "training-curves/golden.safetensors")
    golden = {**versions(), "steps": STEPS, "stride": STRIDE, "alpha": ALPHA, "runs": runs, "gradients": cases}
    with open("training-curves/golden.json", "w") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")


main()
