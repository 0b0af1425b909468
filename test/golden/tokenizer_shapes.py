"""Tokenizers of small vocabularies that hold, together, the components a tokenizer.json can have; and hostile texts for them."""

import json
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "Order 52-68 was delivered; thank you, Anna! It's 1 ½ cups (10² m), isn't it?",
    "Straße, naïve café, Ünïcode. DON'T we're I'LL he'd 12345 67890 3.14",
    "привет мир, 漢字かな交じり文 ー の, 한글, ไทย, हिन्दी २०२४, عربي ٣٤٥, 🙂👍🏽",
    "under_score a-b c.d e,f [x] {y} <z> “quotes” ‘single’ — dash… \t tab\nline\r\nline   spaces",
    "ﬁne ﬂow Ⅳ ① ② ｆｕｌｌ Å Å é é ſ K ı İ",
] * 3

BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def bpe(tokenizer, size=320, **options):
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, **options))
    return tokenizer


def template(tokenizer, before, after=()):
    pieces = [*before, "$A", *after]
    ids = [(token, tokenizer.token_to_id(token)) for token in {*before, *after}]
    tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(pieces), special_tokens=ids)


def byte_tokens():
    return ["<0x%02X>" % byte for byte in range(256)]


def legacy():
    """A space mark before each text, and bytes for what is not known, as Llama 2 has it."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe(t, 440, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens()], limit_alphabet=60)
    # The bytes are tokens of the vocabulary, not added ones.
    made = json.loads(t.to_str())
    made["added_tokens"] = made["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(made))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    t.decoder = decoders.Sequence(parts)
    t.add_tokens([AddedToken("<sep>", normalized=True), AddedToken("<raw>", normalized=False)])
    template(t, ["<s>"])
    return t


def unigram(scheme="first", split=True):
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    special = ["<unk>", "<s>", "</s>", *byte_tokens()]
    t.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=420, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    made = json.loads(t.to_str())
    made["added_tokens"] = made["added_tokens"][:3]
    made["model"]["byte_fallback"] = True
    made["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    t = Tokenizer.from_str(json.dumps(made))
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)])
    template(t, ["<s>"], ["</s>"])
    return t


def word_piece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False),
    )
    t.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    t.decoder = decoders.WordPiece()
    return t


def byte_level():
    """The expression of Llama 3, and added tokens with every option."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe(t, 400, special_tokens=["<|end|>", "<|begin|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.decoder = decoders.ByteLevel()
    t.add_tokens(
        [
            AddedToken("[left]", lstrip=True),
            AddedToken("[right]", rstrip=True),
            AddedToken("word", single_word=True),
            AddedToken("<Norm É>", normalized=True),
            AddedToken("<|x|>", special=True, lstrip=True, rstrip=True),
        ]
    )
    template(t, ["<|begin|>"])
    t.post_processor = processors.Sequence([processors.ByteLevel(), t.post_processor])
    return t


def prefix_space():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    bpe(t, 400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    t.decoder = decoders.ByteLevel()
    return t


def splits(invert):
    """Every behavior of Split and Punctuation."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    patterns = [Regex(r"\d{3}"), Regex(r"[\w&&[^\d]]++(?=,)"), Regex(r"(?<=\s)\p{Lu}"), ".", Regex(r"\p{Han}")]
    parts = [pre_tokenizers.Split(pattern, behavior, invert) for pattern, behavior in zip(patterns, BEHAVIORS)]
    marks = [pre_tokenizers.Punctuation(behavior) for behavior in (BEHAVIORS if invert else BEHAVIORS[1:3])]
    t.pre_tokenizer = pre_tokenizers.Sequence([*parts, *marks, pre_tokenizers.Digits(False)])
    return bpe(t, special_tokens=["<unk>", "</s>"], limit_alphabet=100)


def normalized():
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    t.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s{2,}|[…—]"), " "),
            normalizers.Strip(left=True, right=False),
            normalizers.NFKC(),
        ]
    )
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.UnicodeScripts()])
    bpe(t, special_tokens=["<unk>", "</s>"], end_of_word_suffix="</w>")
    t.decoder = decoders.BPEDecoder()
    return t


def words():
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.normalizer = normalizers.NFD()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.CharDelimiterSplit("_"),
            pre_tokenizers.FixedLength(length=3),
        ]
    )
    t.train_from_iterator(
        CORPUS, trainers.WordLevelTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], show_progress=False)
    )
    return t


SHAPES = {
    "legacy": legacy,
    "unigram": unigram,
    "unigram-whole": lambda: unigram("always", split=False),
    "word-piece": word_piece,
    "byte-level": byte_level,
    "prefix-space": prefix_space,
    "splits": lambda: splits(False),
    "splits-inverted": lambda: splits(True),
    "normalized": normalized,
    "words": words,
}

PARTS = list("abcdeABC  019.,!?'\"-\n\t$%_&|<>[]") + [
    *("½", "²", "①", "٣", "५", "Ⅳ", "〇", "千", "𝟘", "𝒜", "\U000e0001", "🙂", "👍🏽", "👨‍👩‍👧", "🇩🇪"),
    *("\u0085", "\ufeff", "\u00a0", "\u2028", "\u2029", "\u200b", "\u200d", "\u3000", "\u202f", "\u180e", "\u00ad", "\ufffd"),
    *("\x00", "\x0b", "\x0c", "\x1c", "\x1d", "\x1f", "\x7f", "\r", "\r\n", "  ", "   ", "\n\n"),
    *("é", "ü", "ß", "ї", "漢", "字", "ー", "の", "한", "글", "각", "\u0301", "\u0327", "\u094d", "\u0e33", "\u1100", "\u1161"),
    *("ﬁ", "Å", "Å", "ǅ", "ª", "ñ", "ſ", "K", "ı", "İ", "ς", "‿", "ก", "ㅤ", "ﷺ", "―", "«", "‹", "、", "。"),
    *(" I'm", " DON'T", "'ſ", " the", "ing", "▁", "▁▁", "Ġ", "##", "</w>", "<0x41>", "<0xE2>"),
]


def category_samples(rng):
    """A few characters of every category, assigned or not."""
    found = {}
    for code in [*range(0x3000), *rng.sample(range(0x3000, 0x110000), 40_000)]:
        category = unicodedata.category(chr(code))
        if category != "Cs":
            found.setdefault(category, []).append(chr(code))
    return [char for chars in found.values() for char in rng.sample(chars, min(len(chars), 60))]


def hostile_texts(count, seed, tokens=()):
    """`count` short texts of parts that tokenizers stumble over: what is listed above, every category, any code point, `tokens`."""
    rng = random.Random(seed)
    samples = category_samples(rng)
    tokens = [t for t in tokens if t and not any(0xD800 <= ord(c) < 0xE000 for c in t)]

    def part():
        kind = rng.random()
        if kind < 0.6:
            return rng.choice(PARTS)
        if kind < 0.8:
            return rng.choice(samples)
        if kind < 0.9 and tokens:
            return rng.choice(tokens)
        code = rng.randrange(0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)

    return ["".join(part() for _ in range(rng.randint(1, 10))) for _ in range(count)]


def reference(folder, count, seed):
    """What transformers' tokenizer of a model folder makes of hostile texts: ids, what is put around them, and the texts of the ids."""
    from transformers import PreTrainedTokenizerFast

    loaded = PreTrainedTokenizerFast.from_pretrained(folder)
    t = loaded._tokenizer
    t.no_truncation()
    t.no_padding()
    vocab = list(t.get_vocab())
    added = [token.content for token in loaded.added_tokens_decoder.values()]
    rng = random.Random(seed + 1)
    texts = hostile_texts(count, seed, added[:20] + rng.sample(vocab, min(len(vocab), 400)))
    ids = [e.ids for e in t.encode_batch(texts, add_special_tokens=False)]
    around = next(
        (
            {"prefix": full[: full.index(own[0])], "suffix": full[full.index(own[0]) + len(own) :]}
            for text, own in zip(texts, ids)
            if own and own[0] not in loaded.all_special_ids
            for full in [t.encode(text).ids]
        ),
        {"prefix": [], "suffix": []},
    )
    decoded = [loaded.decode(own, skip_special_tokens=True) for own in ids]
    return {"texts": texts, "ids": ids, "decoded": decoded, **around}
