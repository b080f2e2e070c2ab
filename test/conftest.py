"""Small real models and images for every test: random weights, the real architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer
import torch
from transformers import BertConfig, BertTokenizerFast, PreTrainedTokenizerBase, ViTConfig

from llm_mde_core import LLMMDEConfig, LLMMDEForDepthEstimation
from llm_mde_train.tokenizer import our_words

torch.set_num_threads(1)
SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def tokenizer() -> PreTrainedTokenizerBase:
    """Return a WordPiece tokenizer that knows the prompt's words."""
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    wordpiece.train_from_iterator(our_words(), vocab_size=400, show_progress=False)
    return BertTokenizerFast(tokenizer_object=wordpiece._tokenizer, do_lower_case=True)


def small_config(**overrides: object) -> LLMMDEConfig:
    """Return a configuration that runs in milliseconds."""
    fields = dict(
        vision_config=ViTConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=64,
            patch_size=16,
        ),
        language_config=BertConfig(
            vocab_size=400,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        vision_levels=(1, 2),
        num_prototypes=10,
        reprogramming_heads=2,
        reprogramming_head_dim=8,
        bottleneck_dim=6,
        head_dim=16,
        lora_vision_rank=2,
        lora_vision_alpha=4,
        lora_language_rank=2,
        lora_language_alpha=4,
        image_size=64,
        canonical_focal_px=60.0,
    )
    return LLMMDEConfig(**(fields | overrides))


@pytest.fixture
def tiny_model(tokenizer: PreTrainedTokenizerBase) -> LLMMDEForDepthEstimation:
    """Return a small model with random weights, ready for inference."""
    torch.manual_seed(0)
    return LLMMDEForDepthEstimation.create(small_config(), tokenizer).eval()


@pytest.fixture(scope='session')
def tiny_model_dir(
    tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder of a small model with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('model') / 'tiny_random'
    LLMMDEForDepthEstimation.create(small_config(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def rgb() -> np.ndarray:
    """Return an image, uint8 (48, 64, 3) RGB: smooth gradients and a bright square."""
    rows, columns = np.mgrid[0:48, 0:64]
    image = np.stack([rows * 4, columns * 3, (rows + columns) * 2], axis=2).astype(np.uint8)
    image[10:20, 30:44] = 250
    return image
