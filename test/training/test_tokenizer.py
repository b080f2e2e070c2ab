"""The tokenizer that a model from nothing starts with."""

from __future__ import annotations

import itertools

import pytest
from transformers import AutoTokenizer

from llm_mde_core.prompt import CLASS_WORDS, NUMBERS, TEMPLATE, tokenize_prompt
from llm_mde_train import tokenizer as module
from llm_mde_train.tokenizer import standard_library_docstrings, train_tokenizer

SIZE = 1500


@pytest.fixture(scope='module')
def some_docstrings() -> list[str]:
    return list(itertools.islice(standard_library_docstrings(), 200))


@pytest.fixture
def small(some_docstrings, monkeypatch):
    monkeypatch.setattr(module, 'standard_library_docstrings', lambda: some_docstrings)
    return train_tokenizer(vocab_size=SIZE)


def prompt_words() -> set[str]:
    text = TEMPLATE.replace('{', ' {').replace('}', '} ')
    words = [word.strip('.,:') for word in text.split() if '{' not in word]
    return {word.lower() for word in [*words, *' '.join(CLASS_WORDS).split(), *NUMBERS] if word}


def test_every_word_of_the_prompt_is_one_piece(small):
    words = prompt_words()
    assert {'brightness', 'metres', 'giant', 'unseen', '99'} <= words
    assert {word: small.tokenize(word) for word in words} == {word: [word] for word in words}


def test_same_text_gives_the_same_vocabulary(small):
    assert train_tokenizer(vocab_size=SIZE).get_vocab() == small.get_vocab()
    assert len(small) <= SIZE


def test_text_comes_back(small):
    text = 'the camera sees 42 zebras'
    assert small.decode(small(text)['input_ids'], skip_special_tokens=True) == text
    assert small.unk_token_id not in small(text)['input_ids']


def test_only_the_usual_tokens_are_special(small):
    assert set(small.all_special_tokens) == {'[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'}
    assert small.tokenize('#') == ['#']
    assert small.tokenize('##a') == ['#', '#', 'a']


def test_prompt_slots_are_found(small):
    tokens = tokenize_prompt(small, dataset='rooms')
    assert tokens.numbers.shape == (100, 1)
    assert tokens.classes.shape == (7, 3)


def test_saved_is_loaded(small, tmp_path):
    small.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == small.get_vocab()
    assert loaded(TEMPLATE)['input_ids'] == small(TEMPLATE)['input_ids']


def test_docstrings_are_text_in_a_fixed_order(some_docstrings):
    assert some_docstrings == list(itertools.islice(standard_library_docstrings(), 200))
    words = ' '.join(some_docstrings).lower().split()
    assert {'the', 'return', 'of'} <= set(words)
