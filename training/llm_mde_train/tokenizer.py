"""A small WordPiece tokenizer for models that start from nothing, learnt from text that every Python carries."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
import sysconfig

from llm_mde_core.prompt import CLASS_WORDS, NUMBERS, TEMPLATE
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizerFast, PreTrainedTokenizerBase


def train_tokenizer(*, vocab_size: int) -> PreTrainedTokenizerBase:
    """Learn a lower-case WordPiece tokenizer of at most `vocab_size` pieces from the standard library's docstrings."""
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    wordpiece.train_from_iterator(
        [*standard_library_docstrings(), *our_words()], vocab_size=vocab_size, show_progress=False
    )
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
