"""A small WordPiece tokenizer for models that start from nothing, from text in every Python."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
import string
import sysconfig

from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

from llm_mde_core.prompt import CLASS_WORDS, NUMBERS, TEMPLATE

SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
LETTERS = string.ascii_lowercase + string.digits


def train_tokenizer(*, vocab_size: int) -> PreTrainedTokenizerBase:
    """
    Learn a lower-case WordPiece tokenizer of at most `vocab_size` pieces.

    It reads the docstrings of the standard library: one Python always gives one vocabulary.
    """
    learner = BertWordPieceTokenizer(lowercase=True)
    # The learner numbers the insides of words in an order that chance decides, and breaks ties by
    # those numbers, unless they are there before: so they are, as if they were special.
    insides = [f'##{letter}' for letter in LETTERS]
    text = (text.encode('ascii', 'ignore').decode() for text in standard_library_docstrings())
    learner.train_from_iterator(
        [*text, *our_words()],
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL, *insides],
        show_progress=False,
    )
    wordpiece = BertWordPieceTokenizer(vocab=learner.get_vocab(), lowercase=True)
    return BertTokenizerFast(tokenizer_object=wordpiece._tokenizer, do_lower_case=True)


def our_words() -> list[str]:
    """Return the prompt's own words, often enough that each of them becomes one piece."""
    return [TEMPLATE.replace('{', ' ').replace('}', ' '), *CLASS_WORDS, ' '.join(NUMBERS)] * 50


def standard_library_docstrings() -> Iterator[str]:
    """Yield the docstrings of Python's own top-level modules, in a fixed order."""
    for path in sorted(Path(sysconfig.get_path('stdlib')).glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8', errors='replace'))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield docstring
