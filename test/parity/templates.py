"""What transformers makes of conversations: templates.py FOLDER TEMPLATES CONVERSATIONS OUT. For each template (those of the folder TEMPLATES,
and the model's own) and conversation: text, ids, and the mask of {% generation %} marks; null where it refuses."""

import json
import pathlib
import sys
import warnings

from transformers import PreTrainedTokenizerFast

warnings.filterwarnings("ignore")
folder, templates, conversations, out = sys.argv[1:]
# As tokenizer.json says: the classes of some models build their own in place of it.
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

sources = {path.stem: path.read_text() for path in sorted(pathlib.Path(templates).glob("*.jinja"))}
if isinstance(tokenizer.chat_template, str):
    sources["own"] = tokenizer.chat_template
rows = {}
for name, source in sources.items():
    # The date of today would be another in a minute before midnight.
    if "strftime_now" in source:
        continue
    rows[name] = []
    for conversation in json.loads(pathlib.Path(conversations).read_text()):
        options = dict(tools=conversation.get("tools"), chat_template=source)
        try:
            text = tokenizer.apply_chat_template(conversation["messages"], tokenize=False, **options)
            encoded = tokenizer.apply_chat_template(
                conversation["messages"],
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=name.startswith("marked"),
                **options,
            )
            mask = encoded["assistant_masks"] if name.startswith("marked") else None
            rows[name].append({"text": text, "ids": encoded["input_ids"], "mask": mask})
        except Exception:
            rows[name].append(None)
pathlib.Path(out).write_text(json.dumps({"own": sources.get("own"), "rows": rows}))
print("{}")
