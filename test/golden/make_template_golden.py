"""What transformers makes of conversations with the chat templates of public models: texts, and where {% generation %} marks lie.

    python test/golden/make_template_golden.py

transformers 5.24, jinja2 3.1.6. The templates are those of public models, from their tokenizer_config.json or after their description;
`marked-*` are of our own and mark the assistant's turns. The day is 2 July 2025 wherever a template asks for it.
"""
import json
import pathlib
import sys
from datetime import datetime as real

import transformers.utils.chat_template_utils as utils

folder = pathlib.Path(__file__).parent / "templates"


class Frozen(real):
    @classmethod
    def now(cls, tz=None):
        return real(2025, 7, 2, 9, 5, 7)


utils.datetime = Frozen

special = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}


def rendered(template, conversation, prompt, mask=False):
    try:
        texts, marks = utils.render_jinja_template(
            conversations=[utils._normalize_chat_messages(conversation["messages"])],
            tools=conversation.get("tools"),
            chat_template=template,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=mask,
            **special,
        )
        return (texts[0], marks[0] if mask else None)
    except Exception as error:
        return ({"error": str(error)}, None)


variables = dict(
    d={"a": 1, "b": {"c": "x"}, "f": 1.5, "t": True, "n": None},
    d2={"a": 1, "b": {"c": "x"}, "f": 1.5, "t": True, "n": None},
    l=[1, 2, 3],
    s="\ufeff\x85\x1c  sx\n\u3000",
    objs=[{"n": 1}, {"n": 2, "z": 0}],
)


def expressions():
    """Small templates, one a line, and each of their expressions by itself."""
    templates = []
    for line in (folder / "expressions.txt").read_text().splitlines():
        templates.append(line)
        if "}}|{{" in line:
            templates += line.replace("}}|{{", "}}\0{{").split("\0")
    rows = []
    for template in templates:
        try:
            texts, _ = utils.render_jinja_template(conversations=[[]], chat_template=template, **variables)
            rows.append([template, texts[0]])
        except Exception as error:
            rows.append([template, {"error": str(error)}])
    return {"variables": variables, "rows": rows}


def main():
    (folder / "expressions.json").write_text(json.dumps(expressions(), indent=0) + "\n")
    conversations = json.loads((folder / "conversations.json").read_text())
    golden = {}
    for path in sorted(folder.glob("*.jinja")):
        template = path.read_text()
        marked = "generation %}" in template.replace("add_generation_prompt %}", "") and path.stem.startswith("marked")
        rows = []
        for conversation in conversations:
            text, marks = rendered(template, conversation, False, marked)
            prompt, _ = rendered(template, conversation, True)
            row = {"text": text}
            # Most of it is the same again.
            if isinstance(prompt, str) and isinstance(text, str) and prompt.startswith(text):
                row["prompt"] = prompt[len(text):]
            else:
                row["wholePrompt"] = prompt
            if marks is not None:
                row["marks"] = marks
            rows.append(row)
        golden[path.stem] = rows
        errors = sum(isinstance(row["text"], dict) for row in rows)
        print(path.stem, len(rows), "conversations,", errors, "refused", file=sys.stderr)
    (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")


main()
