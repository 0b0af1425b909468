"""What transformers makes of hostile texts: tokens.py FOLDER COUNT SEED OUT, or tokens.py shapes FOLDER, which makes the tokenizers of our own."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
from tokenizer_shapes import CORPUS, SHAPES, reference  # noqa: E402


def precompiled():
    """A tokenizer with the normalizer that SentencePiece trains by default."""
    import base64
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import normalizers

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=trained, vocab_size=200, hard_vocab_limit=False, minloglevel=2
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    tokenizer = SHAPES["unigram"]()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Replace(" ", "▁")]
    )
    return tokenizer


def write(folder, tokenizer):
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    known = tokenizer.get_vocab()
    eos = next(token for token in ("</s>", "[SEP]", "<|end|>") if token in known)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}, f)


if sys.argv[1] == "shapes":
    made = []
    for name, make in {**SHAPES, "precompiled": precompiled}.items():
        try:
            write(os.path.join(sys.argv[2], name), make())
            made.append(name)
        except ImportError as missing:
            print(f"{name} is left out: {missing} (pip install sentencepiece protobuf)", file=sys.stderr)
    print(json.dumps(made))
else:
    folder, count, seed, out = sys.argv[1:]
    with open(out, "w") as f:
        json.dump(reference(folder, int(count), int(seed)), f)
    print("{}")
