"""Several processes learn together what one learns alone, and go on when they were killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import json
import os
from pathlib import Path
import signal
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
import numpy as np
import pytest
from safetensors.torch import load_file
import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from llm_mde_core import LLMMDEForDepthEstimation
from llm_mde_train.batches import Batch
from llm_mde_train.fit import PATIENCE, fit, join_processes
from llm_mde_train.recipe import Recipe
from llm_mde_train.trainer import Trainer

from .conftest import small_rooms


def launch(function: Callable[..., Any], *arguments: object) -> dict[int, Any]:
    """Do what torchrun does with two processes; return what the function gave in each."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend='c10d',
        rdzv_endpoint='localhost:0',
        max_restarts=0,
        monitor_interval=0.05,
        start_method='fork',
    )
    return elastic_launch(config, in_process)(function, *arguments)


def in_process(function: Callable[..., Any], *arguments: object) -> Any:
    AcceleratorState._reset_state(reset_partial_state=True)  # the parent's
    os.environ['OMP_NUM_THREADS'] = '1'
    return function(*arguments)


def batch_of(numbers: list[int]) -> Batch:
    """Return some of three rooms; the last has little known depth."""
    rooms = small_rooms(0, 3)
    rooms[2].depth_m[:, 5:] = np.nan
    return Batch(
        rgb=torch.from_numpy(np.stack([rooms[n].rgb for n in numbers])),
        depth_m=torch.from_numpy(np.stack([rooms[n].depth_m for n in numbers])),
        focal_px=torch.tensor([50.0, 60.0, 70.0])[numbers],
    )


def learn(
    folder: Path, train: str, accelerator: Accelerator | None = None
) -> tuple[list[float], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return losses of two steps, the gradients of the first and the weights at the end."""
    model = LLMMDEForDepthEstimation.from_pretrained(folder)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.manual_seed(0)
    trainer = Trainer(model, Recipe(train=train, warmup_steps=0, clip_norm=1e9), accelerator)
    numbers = list(range(3))[trainer.process :: trainer.processes]
    losses = [trainer.step(batch_of(numbers))['loss'].item()]
    named = trainer.model.named_parameters()
    gradients = {name: w.grad.numpy().copy() for name, w in named if w.grad is not None}
    losses.append(trainer.step(batch_of(numbers))['loss'].item())
    return losses, gradients, {n: w.numpy() for n, w in trainer.model.state_dict().items()}


def learn_together(folder: Path, train: str) -> Any:
    return learn(folder, train, Accelerator(cpu=True))


@pytest.mark.parametrize('train', ['all', 'lora'])
def test_two_processes_learn_what_one_learns_from_the_whole_batch(train, tiny_model_dir):
    losses, gradients, _ = learn(tiny_model_dir, train)
    together = launch(learn_together, tiny_model_dir, train)
    noise = 1e-5 * max(np.abs(gradient).max() for gradient in gradients.values())
    for mine in together.values():
        assert mine[0] == pytest.approx(losses, rel=1e-4)
        assert set(mine[1]) == set(gradients)
        for name, gradient in gradients.items():
            most = 1e-3 * np.abs(gradient).max()
            np.testing.assert_allclose(mine[1][name], gradient, rtol=1e-3, atol=most + noise)
    for name, weight in together[0][2].items():
        np.testing.assert_array_equal(weight, together[1][2][name], err_msg=name)


def fit_and_perhaps_die(recipe: Recipe, out: Path, last_step: int) -> dict[str, Any]:
    """Fit; the second process dies after its `last_step`, when that is not 0."""
    step, steps = Trainer.step, []

    def counted(self: Trainer, batch: Batch) -> dict[str, torch.Tensor]:
        losses = step(self, batch)
        steps.append(1)
        if len(steps) == last_step and self.process == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses

    Trainer.step = counted
    return fit(recipe, out)


def patience(_: object) -> tuple[int, float]:
    accelerator = join_processes()
    options = distributed.group.WORLD._get_backend(accelerator.device).options
    return accelerator.num_processes, options._timeout.total_seconds()


def test_processes_wait_for_a_long_validation():
    """NCCL would give up after 10 minutes, gloo after 30."""
    assert set(launch(patience, None).values()) == {(2, PATIENCE.total_seconds())}


def test_two_killed_processes_go_on_to_the_same_end(cheap, tmp_path):
    """Dropout differs between the processes; each goes on with a random state of its own."""
    recipe = replace(cheap, steps=4, validate_every=2)
    best = launch(fit_and_perhaps_die, recipe, tmp_path / 'whole', 0)
    assert best[0] == best[1]
    with pytest.raises(ChildFailedError):
        launch(fit_and_perhaps_die, recipe, tmp_path / 'killed', 3)
    assert launch(fit_and_perhaps_die, recipe, tmp_path / 'killed', 0) == best
    one, two = (
        load_file(tmp_path / n / 'last' / 'state.safetensors') for n in ('whole', 'killed')
    )
    assert all(one[name].equal(two[name]) for name in one)
    assert not one['random.cpu'][0].equal(one['random.cpu'][1])
    assert json.loads((tmp_path / 'whole' / 'made_by.json').read_text())['processes'] == 2
    with pytest.raises(ValueError, match='processes differ'):
        fit(recipe, tmp_path / 'whole')
