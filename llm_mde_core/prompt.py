"""
Adaptive prompt (LLM-MDE): a real sentence for every image, without host synchronisation.

The sentence is tokenised once. What changes from image to image (five numbers and the
depth-class word) are slots of fixed length, filled from tables of token ids; unused places of a
slot are masked.

Shapes: B batch, H and W pixels, N image tokens, D width of the language model, T prompt length,
C classes, S places of a slot, P places before the first slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from llm_mde_core.config import LLMMDEConfig

# DepthCLIP's words and the canonical depth in metres that each stands for.
DEPTH_CLASSES = {
    'giant': 1.00,
    'extremely close': 1.50,
    'close': 2.00,
    'not in distance': 2.25,
    'a little remote': 2.50,
    'far': 2.75,
    'unseen': 3.00,
}
CLASS_WORDS = tuple(DEPTH_CLASSES)
NUMBERS = tuple(str(number) for number in range(100))
TEMPLATE = (
    'Data: {dataset}. Task: estimate the depth of every patch in metres. '
    'Brightness in percent: minimum {minimum} , median {median} , maximum {maximum} , '
    'contrast {contrast} . '
    'Patches alike: {alike} . The scene is {depth_class} .'
)
NUMBER_SLOTS = ('minimum', 'median', 'maximum', 'contrast', 'alike')
SLOTS = (*NUMBER_SLOTS, 'depth_class')
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
FIXED_PERCENT = 50
FIXED_CLASS = CLASS_WORDS.index('not in distance')
CLASS_TEMPERATURE = 0.1
MAX_PROMPT = 4096  # tokens
MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class PromptTokens:
    """The tokenised sentence, and tables of what may fill its slots."""

    ids: torch.Tensor  # int64 (T,); slots of fixed length hold -1
    slot_starts: dict[str, int]
    numbers: torch.Tensor  # int64 (100, S), -1 where unused
    classes: torch.Tensor  # int64 (7, S'), -1 where unused

    @property
    def layout(self) -> dict[str, Any]:
        """What the configuration has to know to give every table its shape."""
        return {
            'length': len(self.ids),
            'number_length': self.numbers.shape[1],
            'class_length': self.classes.shape[1],
            'slot_starts': self.slot_starts,
        }


class AdaptivePrompt(nn.Module):
    """Describe an image in words; the depth-class word is the one most similar to the image."""

    ids: torch.Tensor
    numbers: torch.Tensor
    classes: torch.Tensor
    order: torch.Tensor

    def __init__(self, config: LLMMDEConfig) -> None:
        super().__init__()
        if config.prompt_layout is None:
            raise ValueError(
                'the configuration has no prompt_layout: build the model with '
                'LLMMDEForDepthEstimation.create, which tokenises the prompt'
            )
        layout = config.prompt_layout
        _check_layout(layout)
        self.mode = config.prompt
        self.patch_px = config.patch_px
        self.slot_starts: dict[str, int] = layout['slot_starts']
        dim = config.language_config.hidden_size
        self.to_words = nn.Linear(dim, dim)
        # Persistent: the sentence travels with the weights and needs no tokenizer to be used.
        self.register_buffer('ids', torch.zeros(layout['length'], dtype=torch.long))
        self.register_buffer(
            'numbers', torch.zeros(len(NUMBERS), layout['number_length'], dtype=torch.long)
        )
        self.register_buffer(
            'classes', torch.zeros(len(CLASS_WORDS), layout['class_length'], dtype=torch.long)
        )
        self.register_buffer('order', torch.arange(layout['length']))

    def load_tokens(self, tokens: PromptTokens) -> None:
        """Fill the tables."""
        self.ids.copy_(tokens.ids)
        self.numbers.copy_(tokens.numbers)
        self.classes.copy_(tokens.classes)
        if self.mode == 'shuffled':
            generator = torch.Generator().manual_seed(0)
            self.order.copy_(torch.randperm(len(tokens.ids), generator=generator))

    def check_tokens(self, *, vocabulary: int) -> None:
        """Raise ValueError when the tables, which are read with the weights, name no words."""
        tables = {'ids': self.ids, 'numbers': self.numbers, 'classes': self.classes}
        if any(table.amin() < -1 or table.amax() >= vocabulary for table in tables.values()):
            raise ValueError(f'the tokens of the prompt are not among the {vocabulary} words')
        if not torch.equal(self.order.sort().values, torch.arange(len(self.ids))):
            raise ValueError('the order of the prompt is no order of its places')

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise ValueError when it reads other words than those whose tokens are in the tables."""
        rows = [*self.numbers, *self.classes]
        for word, ids in zip((*NUMBERS, *CLASS_WORDS), rows, strict=True):
            found = decode_prompt(tokenizer, ids)
            if _letters(found) != _letters(word):
                raise ValueError(
                    f'the tokenizer reads {found!r:.99} where the prompt has {word!r}: it is '
                    "another model's, or does not know the word"
                )
        length = len(decode_prompt(tokenizer, self.ids))
        if length > MAX_CHARACTERS:
            raise ValueError(
                f'the tokenizer reads a prompt of {length} characters, of at most {MAX_CHARACTERS}'
            )

    def forward(
        self,
        rgb: torch.Tensor,
        tokens: torch.Tensor,
        word_embeddings: torch.Tensor,
        class_directions: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Describe images (B, 3, H, W), RGB in 0 to 1, whose tokens are (B, N, D).

        Takes the words (V, D) and what `class_directions` makes of them.
        Returns the prompt's embeddings (B, T, D), its token ids (B, T), -1 where a place is
        unused, the index of the class word in it (B,) and the similarity to every class word
        (B, C).
        """
        similarity = self._class_similarity(tokens, class_directions)
        percent = self._statistics(rgb, tokens)
        chosen = similarity.argmax(dim=1)
        if self.mode == 'fixed':
            percent = torch.full_like(percent, FIXED_PERCENT)
            chosen = torch.full_like(chosen, FIXED_CLASS)

        ids = self._fill(percent, chosen)  # (B, T)
        embeddings = functional.embedding(ids.clamp(min=0), word_embeddings)  # (B, T, D)
        if self.training and self.mode != 'fixed':
            words = self._class_embeddings(word_embeddings)  # (C, S', D)
            embeddings = self._let_gradient_choose(embeddings, similarity, words)
        return embeddings[:, self.order], ids[:, self.order], chosen, similarity

    def _fill(self, percent: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        ids = self.ids.expand(len(chosen), -1).clone()
        for index, slot in enumerate(NUMBER_SLOTS):
            start = self.slot_starts[slot]
            ids[:, start : start + self.numbers.shape[1]] = self.numbers[percent[:, index]]
        start = self.slot_starts['depth_class']
        ids[:, start : start + self.classes.shape[1]] = self.classes[chosen]
        return ids

    def _statistics(self, rgb: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return five whole percentages per image, int64 (B, 5), in the order of NUMBER_SLOTS."""
        red, green, blue = rgb.float().chunk(3, dim=1)
        # Plain factors: a tensor of them would be copied from the host for every image.
        luminance = red * LUMINANCE[0] + green * LUMINANCE[1] + blue * LUMINANCE[2]
        patches = functional.avg_pool2d(luminance, self.patch_px).flatten(1)
        directions = functional.normalize(tokens.detach().float(), dim=2)
        alike = directions.mean(dim=1).square().sum(dim=1)  # mean cosine of all pairs of tokens
        numbers = [
            patches.amin(dim=1),
            patches.median(dim=1).values,
            patches.amax(dim=1),
            luminance.flatten(1).std(dim=1) * 2.0,
            alike,
        ]
        return (torch.stack(numbers, dim=1) * 100.0).round().long().clamp(0, len(NUMBERS) - 1)

    def _class_embeddings(self, word_embeddings: torch.Tensor) -> torch.Tensor:
        embeddings = functional.embedding(self.classes.clamp(min=0), word_embeddings)
        return embeddings * (self.classes >= 0)[..., None]

    def class_directions(self, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (C, D): what the words of each class, from (V, D), mean."""
        lengths = (self.classes >= 0).sum(dim=1, keepdim=True)
        meanings = self._class_embeddings(word_embeddings).sum(dim=1) / lengths  # (C, D)
        # What the words share says nothing about the image.
        return functional.normalize(meanings - meanings.mean(dim=0), dim=1)

    def beginning(self, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Return the embedded words before the first slot (1, P, D), the same for every image."""
        length = 0 if self.mode == 'shuffled' else min(self.slot_starts.values())
        return functional.embedding(self.ids[:length], word_embeddings)[None]

    def _class_similarity(
        self, tokens: torch.Tensor, class_directions: torch.Tensor
    ) -> torch.Tensor:
        image = self.to_words(tokens.mean(dim=1))
        return functional.normalize(image, dim=1) @ class_directions.T / CLASS_TEMPERATURE

    def _let_gradient_choose(
        self, embeddings: torch.Tensor, similarity: torch.Tensor, words: torch.Tensor
    ) -> torch.Tensor:
        """Straight-through: the chosen word goes in, the gradient reaches all similarities."""
        soft = torch.einsum('bc,csd->bsd', similarity.softmax(dim=1), words)
        start = self.slot_starts['depth_class']
        change = torch.zeros_like(embeddings)
        change[:, start : start + words.shape[1]] = soft - soft.detach()
        return embeddings + change


def _check_layout(layout: Any) -> None:
    try:
        starts = layout['slot_starts']
        ends = [starts[slot] + layout['number_length'] for slot in NUMBER_SLOTS]
        ends.append(starts['depth_class'] + layout['class_length'])
        is_sound = min(starts.values()) >= 0 and max(ends) <= layout['length'] <= MAX_PROMPT
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'the prompt_layout {layout!r} is none: {error}') from error
    if not is_sound:
        raise ValueError(f'the prompt_layout {layout!r} has slots outside of the prompt')


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, *, dataset: str) -> PromptTokens:
    """
    Tokenise the sentence and, in its place, everything that can stand in its slots.

    Needs a fast tokenizer (one that reports character offsets). Raises ValueError for one that
    merges a slot's text with its neighbours.
    """
    values = dict.fromkeys(NUMBER_SLOTS, str(FIXED_PERCENT)) | {
        'depth_class': CLASS_WORDS[FIXED_CLASS]
    }
    number_rows = [_slot_ids(tokenizer, dataset, values, 'minimum', number) for number in NUMBERS]
    class_rows = [
        _slot_ids(tokenizer, dataset, values, 'depth_class', word) for word in CLASS_WORDS
    ]
    numbers, classes = _table(number_rows), _table(class_rows)

    encoded_ids, spans = _encode(tokenizer, dataset, values)
    ids: list[int] = []
    slot_starts = {}
    slot_of = {first: (name, last) for name, (first, last) in spans.items()}
    position = 0
    while position < len(encoded_ids):
        if position in slot_of:
            name, last = slot_of[position]
            slot_starts[name] = len(ids)
            ids += [-1] * (classes if name == 'depth_class' else numbers).shape[1]
            position = last
        else:
            ids.append(encoded_ids[position])
            position += 1
    return PromptTokens(
        ids=torch.tensor(ids), slot_starts=slot_starts, numbers=numbers, classes=classes
    )


def decode_prompt(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> str:
    """Read the sentence of one image back from its token ids (T,), -1 where unused."""
    return str(tokenizer.decode(ids[ids >= 0].tolist(), skip_special_tokens=True)).strip()


def _letters(text: str) -> str:
    """Return what is left without spaces, and without marks of where a word goes on."""
    return ''.join(letter for letter in text.casefold() if letter.isalnum())


def _slot_ids(
    tokenizer: PreTrainedTokenizerBase, dataset: str, values: dict[str, str], slot: str, text: str
) -> list[int]:
    ids, spans = _encode(tokenizer, dataset, values | {slot: text})
    first, last = spans[slot]
    return ids[first:last]


def _encode(
    tokenizer: PreTrainedTokenizerBase, dataset: str, values: dict[str, str]
) -> tuple[list[int], dict[str, tuple[int, int]]]:
    """Tokenise the sentence; also return the range of tokens that each slot's text became."""
    text, characters = _fill_template(dataset, values)
    encoded = tokenizer(text, return_offsets_mapping=True)
    spans = {}
    for slot, (start, end) in characters.items():
        # The space before a slot belongs to it: byte-level tokenizers may or may not merge it.
        inside = [
            i for i, (a, b) in enumerate(encoded['offset_mapping']) if a < end and b >= start
        ]
        first, last = inside[0], inside[-1] + 1
        if (
            encoded['offset_mapping'][first][0] < start - 1
            or encoded['offset_mapping'][last - 1][1] > end
        ):
            raise ValueError(f'the tokenizer merges {values[slot]!r} with the words beside it')
        spans[slot] = (first, last)
    return list(encoded['input_ids']), spans


def _fill_template(dataset: str, values: dict[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """Return the sentence and the characters (start, end) that each slot's text takes in it."""
    text, characters = '', {}
    rest = TEMPLATE.replace('{dataset}', dataset)
    for slot in SLOTS:
        before, rest = rest.split('{' + slot + '}')
        text += before
        characters[slot] = (len(text), len(text) + len(values[slot]))
        text += values[slot]
    return text + rest, characters


def _table(rows: list[list[int]]) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
