"""A tokenizer reads the prompt back, by what is in tokenizer.json alone, or is refused."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import shutil
from typing import Any

from conftest import small_config
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_core.model_files import CHECKPOINTS
from llm_mde_core.prompt import decode_prompt
from llm_mde_core.tokenizer_file import PATTERNS, read_tokenizer
from llm_mde_train.tokenizer import our_words

CAMERA = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)


def prompt_of(model: Path) -> str:
    estimator = DepthEstimator.from_pretrained(model, device='cpu')
    return estimator.infer(np.zeros((48, 64, 3), np.uint8), CAMERA).prompt


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / 'model'))


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    'fields',
    [
        {'tokenizer_class': 'ByT5Tokenizer'},
        {'tokenizer_class': 'PerceiverTokenizer'},
        {'tokenizer_class': 'CanineTokenizer'},
        {'tokenizer_class': 'RagTokenizer'},
        {'tokenizer_file': '/elsewhere/tokenizer.json', 'vocab_file': '/elsewhere/vocab.txt'},
        {'auto_map': {'AutoTokenizer': ['own.Own', None]}, 'tokenizer_class': 'Own'},
    ],
)
def test_the_configuration_chooses_neither_class_nor_files(
    tiny_model_dir: Path, folder: Path, fields: dict[str, Any]
) -> None:
    """Such classes loaded, and then could not decode, or gave nonsense."""
    change(folder / 'tokenizer_config.json', **fields)
    assert prompt_of(folder) == prompt_of(tiny_model_dir)


def test_the_bundled_tokenizer_reads_as_that_of_transformers() -> None:
    ours, theirs = (
        read_tokenizer(CHECKPOINTS / 'tiny'),
        AutoTokenizer.from_pretrained(CHECKPOINTS / 'tiny'),
    )
    network = LLMMDEForDepthEstimation.from_pretrained(CHECKPOINTS / 'tiny')
    for ids in (network.prompt.ids, *network.prompt.numbers, *network.prompt.classes):
        assert decode_prompt(ours, ids) == decode_prompt(theirs, ids)
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours('How far is the wall?').input_ids == theirs('How far is the wall?').input_ids


def byte_level(splits: list[pre_tokenizers.PreTokenizer]) -> PreTrainedTokenizerFast:
    """Return a tokenizer as GPT-2, LLaMA 3 and Qwen have them."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not splits)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=['<end>'], show_progress=False
    )
    tokenizer.train_from_iterator(our_words(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token='<end>')


@pytest.mark.parametrize('pattern', [None, *PATTERNS])
def test_tokenizers_of_other_families_are_read(tmp_path: Path, pattern: str | None) -> None:
    splits = [pre_tokenizers.Split(Regex(pattern), behavior='isolated')] if pattern else []
    model = LLMMDEForDepthEstimation.create(small_config(), byte_level(splits))
    model.save_pretrained(tmp_path)
    assert 'estimate the depth of every patch' in prompt_of(tmp_path)


def test_qwens_pattern_is_known() -> None:
    assert PRETOKENIZE_REGEX in PATTERNS


SLOW = {'Regex': '(a+)+$'}


@pytest.mark.parametrize(
    'parts',
    [
        {'normalizer': {'type': 'Replace', 'pattern': SLOW, 'content': ''}},
        {'decoder': {'type': 'Replace', 'pattern': SLOW, 'content': ''}},
        {
            'decoder': {
                'type': 'Sequence',
                'decoders': [
                    {'type': 'Fuse'},
                    {'type': 'Replace', 'pattern': SLOW, 'content': ''},
                ],
            }
        },
        {
            'pre_tokenizer': {
                'type': 'Split',
                'pattern': SLOW,
                'behavior': 'Isolated',
                'invert': False,
            }
        },
    ],
)
def test_a_regular_expression_of_its_own_is_refused(folder: Path, parts: dict[str, Any]) -> None:
    change(folder / 'tokenizer.json', **parts)
    with pytest.raises(ValueError, match=r'has a regular expression of its own: .\(a\+\)\+\$'):
        prompt_of(folder)


def test_what_is_checked_is_what_is_read(folder: Path) -> None:
    """One name twice: Python takes the last value."""
    path = folder / 'tokenizer.json'
    bad = json.dumps({'type': 'Replace', 'pattern': SLOW, 'content': ''})
    path.write_text(f'{{"decoder": {bad}, ' + path.read_text().lstrip()[1:])
    assert 'estimate the depth' in prompt_of(folder)


def drop(folder: Path) -> None:
    (folder / 'tokenizer.json').unlink()


def swap_words(folder: Path) -> None:
    document = json.loads((folder / 'tokenizer.json').read_text())
    words = document['model']['vocab']
    words['far'], words['close'] = words['close'], words['far']
    (folder / 'tokenizer.json').write_text(json.dumps(document))


def far_number(folder: Path) -> None:
    """To copy or save it, tokenizers takes memory for all numbers, and ends the process."""
    document = json.loads((folder / 'tokenizer.json').read_text())
    document['model']['vocab']['far'] = 2**32 - 2
    (folder / 'tokenizer.json').write_text(json.dumps(document))


def long_words(folder: Path) -> None:
    content = {'type': 'Replace', 'pattern': {'String': ':'}, 'content': ' ' * 100_001}
    document = json.loads((folder / 'tokenizer.json').read_text())
    decoder = {'type': 'Sequence', 'decoders': [document['decoder'], content]}
    (folder / 'tokenizer.json').write_text(json.dumps(document | {'decoder': decoder}))


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (drop, r'tokenizer\.json'),
        (swap_words, "reads 'extremely far' where the prompt has 'extremely close'"),
        (far_number, "gives 'far' the number 4294967294"),
        (long_words, r'a prompt of \d+ characters, of at most 100000'),
    ],
)
def test_a_tokenizer_that_does_not_read_the_prompt_is_refused(
    folder: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(folder)
    with pytest.raises((OSError, ValueError), match=reason):
        prompt_of(folder)


def test_special_words_of_older_versions_are_read(folder: Path) -> None:
    token = {'__type': 'AddedToken', 'content': '[PAD]', 'special': True}
    change(folder / 'tokenizer_config.json', pad_token=token, eos_token=None)
    assert read_tokenizer(folder).pad_token == '[PAD]'
