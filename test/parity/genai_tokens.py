"""Continues prompts greedily with onnxruntime-genai: prints {version, sequences} as JSON. Exits with 3 where it is missing.

    pip install onnxruntime-genai
    python test/parity/genai_tokens.py MODEL prompts.json
"""

import json
import sys

try:
    import onnxruntime_genai as og
except ImportError as error:
    print(f"{sys.executable}: {error} (pip install onnxruntime-genai, and LOWRANK_GENAI_PYTHON)", file=sys.stderr)
    sys.exit(3)


def main(folder, path):
    with open(path, encoding="utf-8") as file:
        asked = json.load(file)
    model = og.Model(folder)
    sequences = []
    for ids in asked["ids"]:
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + asked["tokens"], do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        sequences.append([int(token) for token in generator.get_sequence(0)])
    print(json.dumps({"version": og.__version__, "sequences": sequences}))


main(*sys.argv[1:])
