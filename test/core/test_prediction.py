"""A prediction: tensors where the network is; what is not read costs nothing."""

from __future__ import annotations

import numpy as np
import torch

from llm_mde_core import DepthPrediction


def test_host_arrays_are_the_tensors_and_are_made_once() -> None:
    depth, certainty = torch.rand(4, 6), torch.rand(4, 6)
    prediction = DepthPrediction(depth, lambda: certainty, {})
    np.testing.assert_array_equal(prediction.depth_m, depth.numpy())
    np.testing.assert_array_equal(prediction.confidence, certainty.numpy())
    assert prediction.depth_m is prediction.depth_m
    assert np.shares_memory(prediction.depth_m, depth.numpy())  # no copy on the CPU


def test_the_prompt_is_decoded_when_read_and_once() -> None:
    calls: list[int] = []

    def read() -> tuple[str, str]:
        calls.append(1)
        return 'near', 'A wall.'

    depth = torch.ones(4, 6)
    prediction = DepthPrediction(depth, lambda: depth, {}, read_prompt=read)
    assert prediction.depth_m.shape == (4, 6)
    assert not calls
    assert (prediction.depth_class, prediction.prompt, prediction.prompt) == (
        'near',
        'A wall.',
        'A wall.',
    )
    assert len(calls) == 1
