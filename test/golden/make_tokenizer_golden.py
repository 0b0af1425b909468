"""Writes tokenizers/*.json: a tokenizer.json of each shape with the ids and texts that transformers makes of some hostile texts.

    python make_tokenizer_golden.py

Needs tokenizers and transformers; their versions are kept in the files.
"""

import json
import os
import tempfile

import tokenizers
import transformers
from tokenizer_shapes import SHAPES, reference

HERE = os.path.dirname(os.path.abspath(__file__))

for name, make in SHAPES.items():
    tokenizer = json.loads(make().to_str())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    if name == "byte-level":
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    if name == "word-piece":
        config = {"eos_token": "[SEP]", "unk_token": "[UNK]", "clean_up_tokenization_spaces": True}
    if name == "prefix-space":
        # Tokens that only tokenizer_config.json knows: described, with a role, and without one.
        flags = {"lstrip": True, "normalized": False, "rstrip": False, "single_word": False, "special": False}
        size = len(tokenizer["model"]["vocab"])
        config["added_tokens_decoder"] = {str(size): {"content": "[tool]", **flags}, "2": {"content": "!", **flags}}
        config |= {"pad_token": "[PAD]", "extra_special_tokens": ["[extra]", "the"], "add_bos_token": False}
    with tempfile.TemporaryDirectory() as folder:
        for file, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
            with open(os.path.join(folder, file), "w") as f:
                json.dump(content, f, ensure_ascii=False)
        found = reference(folder, 120, seed=len(name))
    versions = {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}
    with open(os.path.join(HERE, "tokenizers", f"{name}.json"), "w") as f:
        json.dump({"versions": versions, "tokenizer": tokenizer, "config": config, **found}, f, ensure_ascii=True)
        f.write("\n")
