"""Golden values of metrics from rouge-score, sacrebleu and scikit-learn.

    pip install rouge-score==0.1.2 sacrebleu==2.6.0 scikit-learn==1.9.1
    python test/golden/make_metrics_golden.py        # rewrites metrics/golden.json beside this file

    versions
    pairs      [expected, completion, rouge1, rouge2, rougeL, sentence BLEU]: written ones, and pairs of words drawn by a seed
    corpora    [first pair, number of pairs, corpus BLEU]
    labels     {labels, expected, predicted, accuracy, macroF1, confusion}; a prediction may be no label
"""

import json
import os
import random
from importlib.metadata import version

import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "metrics", "golden.json")

WRITTEN = [
    ("", ""), ("", "something"), ("something", ""), (" ", "\n"), ("...", "!?"), ("a", "a"), ("a", "b"), ("A", "a"),
    ("The quick brown fox jumps over the lazy dog.", "The quick brown fox jumped over a lazy dog."),
    ("The quick brown fox jumps over the lazy dog.", "the lazy dog jumps over the quick brown fox"),
    ("It costs $1,234.56, not 1.234,56 EUR.", "It costs $1,234.56 not 1,234.56 EUR!"),
    ("2024-03-01 to 2024-03-31", "2024-03-01 - 2024-03-31"), ("3.14", "3.1"), ("1,000", "1000"), ("-5", "- 5"), ("0", "0.0"),
    ("U.S.A. and U.K.", "USA and UK"), ("don't can't won't", "do n't ca n't wo n't"), ("well-known co-\noperate", "well known cooperate"),
    ("&quot;Hi&quot; &amp;lt; you &gt; me", '"Hi" < you > me'), ("<skipped>a b c d e", "a b c d e"), ("tab\tand\x1cfield\x85next", "tab and field next"),
    ("\ufeffmark of order", "mark of order"), ("no\u00a0break\u3000wide\u2003em", "no break wide em"), ("a\u2028b\u2029c", "a b c"),
    ("Grüße aus Köln, Straße 5", "Grüsse aus Köln, Strasse 5"), ("naïve café", "naive cafe"), ("e\u0301clair", "éclair"), ("İstanbul ISTANBUL", "istanbul"),
    ("Kelvin \u212a sign", "kelvin k sign"), ("ﬁne ﬂow", "fine flow"), ("ΑΒΓ αβγ σς", "αβγ ΑΒΓ"), ("Привет, мир!", "Привет мир"), ("今天天气很好。", "今天天氣很好。"),
    ("今日は 良い 天気 です 。", "今日は 悪い 天気 です 。"), ("안녕 하세요 세계", "안녕 세계"), ("مرحبا بالعالم", "مرحبا يا عالم"), ("नमस्ते दुनिया", "नमस्ते"),
    ("👩\u200d👩\u200d👧 family 🇩🇪.", "👩 family 🇩🇪 ."), ("😀.5 and 5.😀", "😀 .5 and 5. 😀"), ("𝒳,𝒴", "𝒳 , 𝒴"), ("x" * 300, "x" * 299),
    ("word " * 60, "word " * 50), ("a b c d", "a b c d"), ("a b c", "a b c"), ("a b", "a b"), ("a b c d e f g", "g f e d c b a"),
    ("the the the the", "the"), ("the", "the the the the"), ('{"a": [1, 2.5, "x,y"]}', '{"a":[1,2.5,"x,y"]}'), ("f(x) = x**2; // ok", "f(x)=x**2;//ok"),
    ("C:\\path\\to /usr/bin ~user `code`", "C:/path/to \\usr\\bin ~user code"), ("a_b a-b a.b a,b a/b a'b", "a b"), ("«quoted» “text” ‘here’ — ok…", '"quoted" text here - ok...'),
    ("line one\nline two\r\nline three", "line one line two line three"), ("  padded  ", "padded"), ("100%", "100 %"), ("#tag @user", "# tag @ user"), ("I I I am am", "I am"),
]  # fmt: skip

WORDS = "the a of in to is was dog cat house red blue run 12 3.5 1,000 don't e-mail Zürich 東京 , . ! ? ; ( ) - \" élan 😀 NASA it".split()


def drawn(count):
    draw = random.Random(7)
    for _ in range(count):
        expected = [draw.choice(WORDS) for _ in range(draw.choice([0, 1, 2, 3, 5, 8, 13, 21]))]
        made = [word if draw.random() < 0.75 else draw.choice(WORDS) for word in expected if draw.random() < 0.9]
        made += [draw.choice(WORDS) for _ in range(draw.choice([0, 0, 1, 4]))]
        yield " ".join(expected), (" " if draw.random() < 0.9 else "").join(made)


def pair(expected, completion):
    scores = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False).score(expected, completion)
    return [expected, completion, *(scores[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")),
            sacrebleu.sentence_bleu(completion, [expected]).score]  # fmt: skip


def classification(draw, labels, others, count):
    expected = [draw.choice(labels) for _ in range(count)]
    predicted = [label if draw.random() < 0.6 else draw.choice(labels + others) for label in expected]
    return {
        "labels": labels, "expected": expected, "predicted": predicted,
        "accuracy": accuracy_score(expected, predicted),
        "macroF1": f1_score(expected, predicted, labels=labels, average="macro", zero_division=0),
        "confusion": confusion_matrix(expected, predicted, labels=labels).tolist(),
    }  # fmt: skip


def main():
    texts = WRITTEN + list(drawn(200))
    corpora = [(0, len(texts)), (0, 4), (5, 3), (60, 100), *((i, 5) for i in range(0, 250, 10))]
    draw = random.Random(11)
    golden = {
        "versions": {name: version(name) for name in ("rouge-score", "sacrebleu", "scikit-learn")},
        "pairs": [pair(*one) for one in texts],
        "corpora": [[first, count, sacrebleu.corpus_bleu([made for _, made in texts[first:first + count]],
                     [[expected for expected, _ in texts[first:first + count]]]).score] for first, count in corpora],
        "labels": [
            classification(draw, ["yes", "no"], [], 20), classification(draw, ["a", "b", "c", "never"][:3] + ["rare"], ["maybe", ""], 40),
            classification(draw, ["正", "负", "中 性"], ["x"], 30), classification(draw, ["only"], [], 5), classification(draw, [str(i) for i in range(12)], [], 30),
        ],
    }  # fmt: skip
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w") as file:
        json.dump(golden, file, ensure_ascii=False, indent=None, separators=(",", ":"))
        file.write("\n")
    print(len(golden["pairs"]), "pairs,", os.path.getsize(OUT), "bytes")


if __name__ == "__main__":
    main()
