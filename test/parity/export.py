"""What Python's readers make of exports, as JSON: see test/parity/export.ts.

    export.py gguf FILE.gguf F32.gguf      gguf: the file opens; its blocks are those that the package quantizes the f32 tensors to
    export.py peft BASE ADAPTER IDS...     peft: logits of the token after some ids, with the adapter on its base
    export.py mlx BASE ADAPTER COUNT IDS   mlx-lm: the tokens that follow some ids (one list, separated by commas), greedy
"""

import json
import sys

kind, *args = sys.argv[1:]
if kind == "gguf":
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader, quantize

    found, plain = GGUFReader(args[0]), {tensor.name: tensor for tensor in GGUFReader(args[1]).tensors}
    blocks, wrong = 0, []
    for tensor in found.tensors:
        values = np.array(plain[tensor.name].data, dtype=np.float32)
        kind = tensor.tensor_type
        wanted = values if kind == GGMLQuantizationType.F32 else quantize(values, kind)
        if kind.name in ("Q8_0", "Q4_0"):
            blocks += 1
        if np.array(tensor.data).tobytes() != np.array(wanted).tobytes():
            wrong.append(tensor.name)
    print(json.dumps({"tensors": len(found.tensors), "blocks": blocks, "wrong": wrong, "fields": len(found.fields)}))
elif kind == "peft":
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(args[0], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, args[1])
    logits = []
    with torch.no_grad():
        for ids in args[2:]:
            out = model(input_ids=torch.tensor([[int(id) for id in ids.split(",")]])).logits[0, -1]
            logits.append([float(value) for value in out])
    print(json.dumps({"logits": logits}))
else:
    import mlx.core as mx
    from mlx_lm import __version__, load
    from mlx_lm.generate import generate_step

    mx.set_default_device(mx.cpu)
    model, _ = load(args[0], adapter_path=args[1])
    model.set_dtype(mx.float32)
    ids = mx.array([int(id) for id in args[3].split(",")])
    made = [int(token) for token, _ in generate_step(ids, model, max_tokens=int(args[2]))]
    print(json.dumps({"version": __version__, "tokens": made}))
