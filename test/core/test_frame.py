"""One frame is one function of tensors: the host looks at nothing in it, nothing breaks it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from conftest import small_config
import numpy as np
import pytest
import torch
from torch.distributions import Laplace
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Dinov2Config, GPT2Config, PreTrainedTokenizerBase

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_core.frame import Frame, confidence_of

CAMERA = Camera.from_hfov(width=70, height=50, hfov_deg=60.0)
FAMILIES = {
    'vit-bert': {},
    'dinov2-gpt2': {
        'vision_config': Dinov2Config(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=64,
            patch_size=16,
        ),
        'language_config': GPT2Config(vocab_size=400, n_embd=24, n_layer=2, n_head=2),
    },
    'no language': {'language': 'none'},
}


class HostLooks(TorchDispatchMode):
    """Note every operation that takes a value to the host or brings one from there."""

    FORBIDDEN = frozenset(
        {'_local_scalar_dense', 'lift_fresh', 'nonzero', 'masked_select', 'unique_dim', '_unique2'}
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().split('::')[1].split('.')[0]
        picked = args[1] if name == 'index' else ()  # a mask picks as many as the host counts
        by_mask = any(index is not None and index.dtype == torch.bool for index in picked)
        empty = bool(args) and isinstance(args[0], torch.Tensor) and not args[0].numel()
        if (name in self.FORBIDDEN or by_mask) and not empty:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def make_frame(
    tokenizer: PreTrainedTokenizerBase, overrides: dict[str, Any]
) -> tuple[Frame, tuple[Any, ...]]:
    torch.manual_seed(0)
    model = LLMMDEForDepthEstimation.create(small_config(**overrides), tokenizer)
    estimator = DepthEstimator(model, device='cpu')
    fit = estimator.processor.fit(height=50, width=70, focal_px=CAMERA.focal_px)
    rgb = torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8)
    with torch.no_grad():
        constants = model.constants()
    return Frame(model, fit, height=50, width=70), (rgb, torch.tensor([55.0]), constants)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_host_looks_at_nothing_in_a_frame(
    tokenizer: PreTrainedTokenizerBase, family: str
) -> None:
    """Defect 11: six synchronisations a frame."""
    frame, inputs = make_frame(tokenizer, FAMILIES[family])
    with torch.inference_mode(), HostLooks() as looks:
        frame(*inputs)
    assert looks.seen == []


@pytest.mark.parametrize(
    'look',
    [
        lambda depth: depth.max().item(),
        lambda depth: bool((depth > 1).all()),
        lambda depth: depth[depth > 1],
        lambda depth: depth * torch.tensor(2.0),
        lambda depth: depth.new_tensor([1.0, 2.0]),
    ],
    ids=['item', 'bool', 'mask', 'tensor', 'new_tensor'],
)
def test_a_look_would_be_seen(look: Any) -> None:
    with HostLooks() as looks:
        look(torch.rand(4, 4))
    assert looks.seen


@pytest.mark.parametrize('family', ['vit-bert', 'dinov2-gpt2'])
def test_a_frame_is_one_graph(tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    frame, inputs = make_frame(tokenizer, FAMILIES[family])
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: Iterable[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    with torch.inference_mode():
        plain = frame(*inputs)
        traced = torch.compile(frame, backend=count, fullgraph=True, dynamic=False)(*inputs)
    assert len(graphs) == 1
    torch.testing.assert_close(traced.depth, plain.depth)
    torch.testing.assert_close(traced.certainty, plain.certainty)
    assert torch.equal(traced.prompt_ids, plain.prompt_ids)


def test_confidence_is_the_probability_of_a_small_error() -> None:
    for spread in (0.05, 0.3, 2.0):
        laplace = Laplace(0.0, spread)
        limit = torch.tensor(1.25).log()
        expected = float(laplace.cdf(limit) - laplace.cdf(-limit))
        assert float(confidence_of(torch.tensor(spread).log())) == pytest.approx(
            expected, abs=1e-6
        )
    assert np.isfinite(float(confidence_of(torch.tensor(-5.0))))
