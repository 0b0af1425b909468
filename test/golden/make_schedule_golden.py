"""Learning rates from transformers for the tests of the schedules (which need no Python).

    pip install torch==2.13.0 transformers==5.23.0
    python test/golden/make_schedule_golden.py        # rewrites schedules/golden.json beside this file

    schedules/golden.json    versions; cases: the options of a run as TrainingArguments calls them, its optimizer steps, and the
                             learning rate of each step and of the two after the last

The defaults that Lowrank has where transformers demands a setting (min_lr_rate, num_decay_steps) are given outright: `default` holds
what Lowrank is not told.
"""

import json
import os
import platform
from types import SimpleNamespace

import torch
import transformers
from transformers import TrainingArguments, get_scheduler

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schedules")
STEPS = 20
RATE = 2e-4


def case(schedule, kwargs=None, warmup=3, steps=STEPS, default=None):
    """`warmup` as TrainingArguments.warmup_steps: below 1 a share of all steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = get_scheduler(
        schedule,
        optimizer,
        num_warmup_steps=TrainingArguments.get_warmup_steps(SimpleNamespace(warmup_steps=warmup), steps),
        num_training_steps=steps,
        scheduler_specific_kwargs={**(kwargs or {}), **(default or {})},
    )
    rates = []
    for _ in range(steps + 2):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    options = {"lr_scheduler_type": schedule, "warmup_steps": warmup, "learning_rate": RATE}
    if kwargs:
        options["lr_scheduler_kwargs"] = kwargs
    return {"options": options, "steps": steps, "rates": rates}


def cases():
    plain = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt")
    for schedule in plain:
        for warmup in (0, 3, 0.25, 1):
            yield case(schedule, warmup=warmup)
    for schedule in ("cosine_with_min_lr", "cosine_warmup_with_min_lr"):
        yield case(schedule, default={"min_lr_rate": 0.1})
        yield case(schedule, {"min_lr": 5e-5})
        yield case(schedule, {"min_lr_rate": 0.3, "num_cycles": 1.5}, warmup=0)
        yield case(schedule, {"min_lr_rate": 0}, warmup=1)
    yield case("cosine_warmup_with_min_lr", {"min_lr_rate": 0.2, "warmup_lr_rate": 0.25}, warmup=4)
    yield case("cosine_warmup_with_min_lr", {"min_lr_rate": 0.2, "warmup_lr_rate": 0.25}, warmup=1)
    yield case("cosine", {"num_cycles": 1.25})
    yield case("cosine_with_restarts", {"num_cycles": 3})
    yield case("polynomial", {"power": 2.5, "lr_end": 1e-5})
    yield case("inverse_sqrt", {"timescale": 7})
    yield case("inverse_sqrt", {"timescale": 2}, warmup=0)
    yield case("linear", warmup=20)
    yield case("linear", warmup=30)
    wsd = "warmup_stable_decay"
    yield case(wsd, default={"num_decay_steps": 2})
    yield case(wsd, warmup=0, steps=31, default={"num_decay_steps": 4})
    yield case(wsd, {"num_decay_steps": 6})
    yield case(wsd, {"num_decay_steps": 6, "num_stable_steps": 5, "min_lr_ratio": 0.1})
    yield case(wsd, {"num_decay_steps": 0})
    yield case(wsd, {"num_decay_steps": 19})
    for warmup_type in ("linear", "cosine", "1-sqrt"):
        for decay_type in ("linear", "cosine", "1-sqrt"):
            types = {"warmup_type": warmup_type, "decay_type": decay_type}
            yield case(wsd, {"num_decay_steps": 8, "min_lr_ratio": 0.2, "num_cycles": 0.75, **types}, warmup=5)


def main():
    os.makedirs(OUT, exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
    with open(os.path.join(OUT, "golden.json"), "w") as f:
        lines = ",\n".join("  " + json.dumps(one) for one in cases())
        f.write(f'{{"versions": {json.dumps(versions)},\n "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
