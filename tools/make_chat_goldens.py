#!/usr/bin/env python3
"""Writes tests/chat/goldens/: what transformers' apply_chat_template makes of conversations.

    pip install transformers
    tools/make_chat_goldens.py [FOLDER OF FURTHER TEMPLATES]

own.json has for each template of tests/chat/goldens/templates/ the texts of the conversations in conversations.jsonl, or
null where transformers refuses. further.json has for each NAME.jinja of the folder, whose text is not ours to copy, "BYTES
FNV-1a" of each, with the dates that strftime_now printed replaced by their formats.
"""
import datetime
import json
import pathlib
import re
import sys

import tokenizers
import transformers

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "chat" / "goldens"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def rendered(tokenizer, template, conversation):
    fields = dict(conversation)
    try:
        return tokenizer.apply_chat_template(fields.pop("messages"), chat_template=template, tokenize=False, **fields)
    except Exception:  # a template's refusal can be any
        return None


def undated(text, template):
    """`text` with the dates of today that `template` prints as their formats."""
    for form in sorted(set(re.findall(r"""strftime_now\(['"]([^'"]+)['"]\)""", template))):
        text = text.replace(datetime.datetime.now().strftime(form), form)
    return text


def digest(text):
    data, value = text.encode(), 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 % 2**64
    return f"{len(data)} {value:016x}"


def write(name, golden):
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, indent=1, ensure_ascii=False)}" for key, value in golden.items())
    (GOLDENS / name).write_text("{\n" + lines + "\n}\n")


def main():
    vocabulary = tokenizers.models.WordLevel({token: id for id, token in enumerate(TOKENS.values())}, unk_token="<pad>")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(vocabulary), **TOKENS)
    conversations = [json.loads(line) for line in (GOLDENS / "conversations.jsonl").read_text().splitlines()]

    def texts(path):
        template = path.read_text()
        return template, [rendered(tokenizer, template, conversation) for conversation in conversations]

    write("own.json", {path.stem: texts(path)[1] for path in sorted((GOLDENS / "templates").glob("*.jinja"))})
    if len(sys.argv) > 1:
        further = {}
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
            template, results = texts(path)
            further[path.stem] = [None if text is None else digest(undated(text, template)) for text in results]
        write("further.json", further)


main()
