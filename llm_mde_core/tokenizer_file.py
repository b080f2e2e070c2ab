"""
What is read of a model's tokenizer: tokenizer.json, and which words are special.

transformers would take a class from tokenizer_config.json, files that it names, and from
tokenizer.json whatever regular expression is there, of which one can take forever.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llm_mde_core.model_files import MAX_TOKENIZER_BYTES, read_object

FILE = 'tokenizer.json'
CONFIG = 'tokenizer_config.json'
MAX_WORDS = 2**20  # of which tokenizers makes a list, however many numbers are left out
SPECIAL = [f'{name}_token' for name in ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')]
# How LLaMA 3 and Qwen cut text into words; BERT, GPT-2 and older LLaMAs have no pattern.
_REST = r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
_WORDS = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"""
PATTERNS = (f'{_WORDS}{{1,3}}{_REST}', f'{_WORDS}{_REST}')


def read_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer in a model's folder; ValueError when it cannot be, or is not let be."""
    path = Path(folder) / FILE
    try:
        document = read_object(path, most=MAX_TOKENIZER_BYTES)
        _check(document)
        # Not the file again: of two values of one name, it may take the other.
        tokenizer = Tokenizer.from_str(json.dumps(document))
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_special_words(folder))
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f'the tokenizer in {folder} cannot be read: {error}') from error


def _check(document: dict[str, Any]) -> None:
    for pattern in _patterns_in({**document, 'model': None}):  # which has words alone
        if pattern not in PATTERNS:
            raise ValueError(f'{FILE} has a regular expression of its own: {pattern!r:.99}')
    model = document.get('model')
    words = model.get('vocab') if isinstance(model, dict) else None
    for word, number in words.items() if isinstance(words, dict) else ():
        if type(number) is not int or not 0 <= number < MAX_WORDS:
            raise ValueError(f'{FILE} gives {word!r:.99} the number {number!r:.99}')


def _patterns_in(value: Any) -> Iterator[Any]:
    """Yield what stands after a Regex anywhere in a document."""
    if isinstance(value, dict):
        if 'Regex' in value:
            yield value['Regex']
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _patterns_in(inner)


def _special_words(folder: str | Path) -> dict[str, str]:
    path = Path(folder) / CONFIG
    if not path.exists():
        return {}
    said = read_object(path, most=MAX_TOKENIZER_BYTES)
    words = {name: said[name] for name in SPECIAL if said.get(name) is not None}
    for name, word in words.items():
        if isinstance(word, dict):  # older versions say how it is set apart, too
            words[name] = word = word.get('content')
        if not isinstance(word, str):
            raise ValueError(f'{path} sets {name} to {words[name]!r:.99}, which is no word')
    return words
