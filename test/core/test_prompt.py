"""The adaptive prompt: a real sentence per image, informative, learnable and readable."""

from __future__ import annotations

from conftest import small_config
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
import torch
from transformers import GPT2TokenizerFast, PreTrainedTokenizerBase

from llm_mde_core import LLMMDEForDepthEstimation
from llm_mde_core.prompt import CLASS_WORDS, decode_prompt, tokenize_prompt

PATCH = 16


def sentence(model: LLMMDEForDepthEstimation, rgb: torch.Tensor) -> str:
    with torch.no_grad():
        return decode_prompt(model.tokenizer, model(rgb[None]).prompt_ids[0])


def numbers_in(text: str) -> dict[str, int]:
    words = text.replace(',', ' ').replace('.', ' ').replace(':', ' ').split()
    return {
        name: int(words[words.index(name) + 1])
        for name in ('minimum', 'median', 'maximum', 'contrast', 'alike')
    }


def test_numbers_are_those_of_the_image(tiny_model: LLMMDEForDepthEstimation) -> None:
    """Defect 8: statistics that are argmax indices, nearly always 0 and 223."""
    rgb = torch.full((3, 48, 48), 0.40)
    rgb[:, :PATCH, :PATCH] = 0.10
    rgb[:, -PATCH:, -PATCH:] = 0.80
    numbers = numbers_in(sentence(tiny_model, rgb))
    assert (numbers['minimum'], numbers['median'], numbers['maximum']) == (10, 40, 80)
    assert numbers['contrast'] == round(float(rgb[0].std()) * 200)
    assert 0 <= numbers['alike'] <= 99


def test_two_images_give_two_prompts_in_one_batch(tiny_model: LLMMDEForDepthEstimation) -> None:
    """Defect 8: a class from the first image, shared by the batch."""
    dark, bright = torch.full((3, 48, 64), 0.2), torch.full((3, 48, 64), 0.7)
    with torch.no_grad():
        ids = tiny_model(torch.stack([dark, bright])).prompt_ids
    texts = [decode_prompt(tiny_model.tokenizer, one) for one in ids]
    assert texts[0] != texts[1]
    assert numbers_in(texts[0])['median'] == 20
    assert numbers_in(texts[1])['median'] == 70


def test_the_whole_sentence_can_be_read(tiny_model: LLMMDEForDepthEstimation) -> None:
    text = sentence(tiny_model, torch.full((3, 48, 64), 0.5))
    assert text.startswith('data : indoor rooms seen by one camera. task : estimate the depth')
    assert any(text.endswith(f'the scene is {word}.') for word in CLASS_WORDS)


@pytest.mark.parametrize('wanted', range(len(CLASS_WORDS)))
def test_the_word_is_the_most_similar_one(
    tiny_model: LLMMDEForDepthEstimation, wanted: int
) -> None:
    prompt = tiny_model.prompt
    words = tiny_model.language.word_embeddings
    with torch.no_grad():
        prompt.to_words.weight.zero_()
        prompt.to_words.bias.copy_(prompt.class_directions(words)[wanted])
        output = tiny_model(torch.rand(1, 3, 48, 64))
    assert int(output.depth_class[0]) == wanted
    assert decode_prompt(tiny_model.tokenizer, output.prompt_ids[0]).endswith(
        f'the scene is {CLASS_WORDS[wanted]}.'
    )


def test_the_choice_of_the_word_can_be_learnt(tiny_model: LLMMDEForDepthEstimation) -> None:
    tiny_model.train()
    tiny_model(torch.rand(2, 3, 48, 64)).predicted_depth.sum().backward()
    assert float(tiny_model.prompt.to_words.weight.grad.abs().sum()) > 0.0


def test_training_and_inference_read_the_same_prompt(tiny_model: LLMMDEForDepthEstimation) -> None:
    """The straight-through gradient must not change what goes in."""
    rgb, tokens = torch.rand(2, 3, 48, 64), torch.randn(2, 12, 24)
    words = tiny_model.language.word_embeddings
    directions = tiny_model.prompt.class_directions(words)
    inference, *_ = tiny_model.prompt.eval()(rgb, tokens, words, directions)
    training, *_ = tiny_model.prompt.train()(rgb, tokens, words, directions)
    torch.testing.assert_close(training, inference)


def test_fixed_prompt_ignores_the_image(tokenizer: PreTrainedTokenizerBase) -> None:
    model = LLMMDEForDepthEstimation.create(small_config(prompt='fixed'), tokenizer).eval()
    assert sentence(model, torch.zeros(3, 48, 64)) == sentence(model, torch.rand(3, 48, 64))


def test_shuffled_prompt_has_the_same_words_in_another_order(
    tokenizer: PreTrainedTokenizerBase, tiny_model: LLMMDEForDepthEstimation
) -> None:
    shuffled = LLMMDEForDepthEstimation.create(small_config(prompt='shuffled'), tokenizer).eval()
    rgb, tokens = torch.rand(1, 3, 48, 64), torch.randn(1, 12, 24)
    shuffled.prompt.to_words.load_state_dict(tiny_model.prompt.to_words.state_dict())
    words = tiny_model.language.word_embeddings
    directions = tiny_model.prompt.class_directions(words)
    plain, mixed = (
        model.prompt(rgb, tokens, words, directions)[1][0] for model in (tiny_model, shuffled)
    )
    assert plain.tolist() != mixed.tolist()
    assert sorted(plain.tolist()) == sorted(mixed.tolist())


def test_no_host_synchronisation(tiny_model: LLMMDEForDepthEstimation) -> None:
    """Defect 11: on the meta device every look at a value from the host raises."""
    model = tiny_model.to('meta')
    with torch.no_grad():  # as in inference, where constants are kept
        output = model(torch.empty(2, 3, 48, 64, device='meta'))
    assert output.predicted_depth.shape == (2, 48, 64)


def byte_pair_tokenizer() -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer as GPT-2 and Qwen have, learnt from a few words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=['<|endoftext|>'],
    )
    tokenizer.train_from_iterator(
        ['the depth of every patch is close or far', *CLASS_WORDS] * 5, trainer
    )
    return GPT2TokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize('family', ['wordpiece', 'bytes'])
def test_slots_hold_what_the_tokenizer_itself_would_say(
    family: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer = tokenizer if family == 'wordpiece' else byte_pair_tokenizer()
    tokens = tokenize_prompt(tokenizer, dataset='a test')
    for number, word in ((0, 0), (7, 2), (42, 4), (99, 6)):
        ids = tokens.ids.clone()
        for slot, start in tokens.slot_starts.items():
            row = tokens.classes[word] if slot == 'depth_class' else tokens.numbers[number]
            ids[start : start + len(row)] = row
        text = (
            'Data: a test. Task: estimate the depth of every patch in metres. '
            f'Brightness in percent: minimum {number} , median {number} , maximum {number} , '
            f'contrast {number} . Patches alike: {number} . '
            f'The scene is {CLASS_WORDS[word]} .'
        )
        assert ids[ids >= 0].tolist() == tokenizer(text)['input_ids']


def test_a_tokenizer_that_merges_slots_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=300)
    sentence_twice = 'The scene is not in distance . Patches alike: 50 . '
    tokenizer.train_from_iterator([sentence_twice] * 20, trainer)
    with pytest.raises(ValueError, match='merges'):
        tokenize_prompt(GPT2TokenizerFast(tokenizer_object=tokenizer), dataset='a test')
