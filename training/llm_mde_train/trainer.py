"""One step of training, what it changes, and that state as tensors and JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
import copy
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather
from peft import PeftModel
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from llm_mde_core import LLMMDEForDepthEstimation, add_lora
from llm_mde_core.estimator import PRECISIONS, choose_precision
from llm_mde_train.batches import Batch
from llm_mde_train.losses import LossWeights, total_loss
from llm_mde_train.muon import Muon, matrices
from llm_mde_train.recipe import Recipe


class DivergenceError(RuntimeError):
    """Training came to numbers that are not finite; nothing is broken but the settings."""


class Trainer:
    """
    A model that learns, with its optimiser, schedule and the running mean of its weights.

    With an accelerator of several processes each learns from its part of every batch, and their
    weights stay the same: those that one process learns from the whole batch.
    """

    def __init__(
        self,
        model: LLMMDEForDepthEstimation,
        recipe: Recipe,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.device = model.device
        self.canonical_focal_px = model.config.canonical_focal_px
        self.clip_norm = recipe.clip_norm
        self.loss_weights = LossWeights(**recipe.losses)
        self.dtype = _dtype(recipe, self.device)
        self.model = _trainable(model, recipe).train()
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = Muon(
            _groups(self.model, recipe), weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(recipe, step)
        )
        self.average = AveragedModel(self.model, multi_avg_fn=_running_mean(recipe.ema_decay))
        self.processes = accelerator.num_processes if accelerator else 1
        self.process = accelerator.process_index if accelerator else 0
        self.network = accelerator.prepare_model(self.model) if accelerator else self.model

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Learn from one batch; return its loss and its parts; DivergenceError when it cannot."""
        loss, parts = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        # The processes' gradients come averaged, but the loss is that of all of them together.
        (loss * self.processes).backward()
        clip_gradients(self.trained, largest_norm=self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return {'loss': loss.detach()} | {name: part.detach() for name, part in parts.items()}

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of one batch and its parts."""
        pixels = batch.rgb.to(self.device).permute(0, 3, 1, 2).float() / 255.0
        focal_px = batch.focal_px.to(self.device)
        lower = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=lower):
            output = self.network(pixel_values=pixels, focal_px=focal_px)
        return total_loss(
            output,
            depth_m=batch.depth_m.to(self.device),
            canonical_ratio=self.canonical_focal_px / focal_px,
            weights=self.loss_weights,
        )

    def averaged(self) -> LLMMDEForDepthEstimation:
        """Return a copy with the averaged weights, LoRA folded in; training does not notice."""
        model = copy.deepcopy(self.average.module)
        return model.merge_and_unload() if isinstance(model, PeftModel) else model

    def save(self, averaged: LLMMDEForDepthEstimation, out: Path) -> None:
        """Write the averaged model to `out/model` and, with LoRA, its adapter to `out/adapter`."""
        averaged.save_pretrained(out / 'model')
        if isinstance(self.average.module, PeftModel):
            # 'auto' would look for the model that it starts from on the hub.
            self.average.module.save_pretrained(out / 'adapter', save_embedding_layers=False)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """
        Return what the next steps follow from: tensors, and what is no tensor.

        All processes have to call it: it holds the random states of all.
        """
        optimizer = self.optimizer.state_dict()
        tensors = {
            f'optimizer.{number}.{name}': value
            for number, values in optimizer['state'].items()
            for name, value in values.items()
        }
        for part in ('model', 'average'):
            weights = getattr(self, part).state_dict()
            tensors |= {f'{part}.{name}': weight for name, weight in weights.items()}
        for name, state in self._random_states().items():
            tensors[f'random.{name}'] = self._of_all_processes(state)
        schedule = self.schedule.state_dict()
        return tensors, {'param_groups': optimizer['param_groups'], 'schedule': schedule}

    def load_state(self, tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for part in ('model', 'average'):
            getattr(self, part).load_state_dict(_under(part, tensors))
        moments: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, value in _under('optimizer', tensors).items():
            number, key = name.split('.', 1)
            moments[int(number)][key] = value
        groups = rest['param_groups']
        self.optimizer.load_state_dict({'state': dict(moments), 'param_groups': groups})
        self.schedule.load_state_dict(rest['schedule'])
        # Copies, because torch reads the state where the storage begins.
        torch.set_rng_state(tensors['random.cpu'][self.process].clone())
        if 'random.cuda' in tensors and self.device.type == 'cuda':
            state = tensors['random.cuda'][self.process].clone()
            torch.cuda.set_rng_state(state, self.device)

    def _random_states(self) -> dict[str, torch.Tensor]:
        states = {'cpu': torch.get_rng_state()}
        if self.device.type == 'cuda':
            states['cuda'] = torch.cuda.get_rng_state(self.device)
        return states

    def _of_all_processes(self, state: torch.Tensor) -> torch.Tensor:
        """Return (processes, bytes)."""
        state = state[None]
        return gather(state.to(self.device)).cpu() if self.processes > 1 else state


def clip_gradients(weights: list[torch.nn.Parameter], *, largest_norm: float) -> None:
    """Scale gradients down to a norm; DivergenceError, not NaN in weights, when it has none."""
    norm = torch.nn.utils.clip_grad_norm_(weights, largest_norm)
    if not norm.isfinite():
        raise DivergenceError(
            f'training diverged: the gradients are non-finite (norm {norm.item()}); '
            'lower the learning rate or clip_norm'
        )


def _trainable(model: LLMMDEForDepthEstimation, recipe: Recipe) -> LLMMDEForDepthEstimation | Any:
    """Say which weights learn: all but the recipe's frozen parts, or LoRA and what is between."""
    if recipe.train == 'lora':
        return add_lora(model)
    for name in recipe.frozen:
        if not hasattr(model, name):
            raise ValueError(f'the model has no part {name!r} to freeze')
        getattr(model, name).requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.endswith('mask_token'):  # of DINOv2, for its own training; nothing reaches it
            weight.requires_grad_(False)
    return model


def _groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Sort the weights that learn by their learning rate."""
    by_muon = {id(weight) for weight in matrices(model)} if recipe.matrix_learning_rate else ()
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {
            'params': [weight for weight in learning if (id(weight) in by_muon) == chosen],
            'lr': rate,
            'matrices': chosen,
        }
        for chosen, rate in (
            (False, recipe.learning_rate),
            (True, recipe.matrix_learning_rate),
        )
    ]
    return [group for group in groups if group['params']]


def _dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """Return what most of the network computes in; fp16 would need its gradients scaled."""
    chosen = choose_precision(recipe.precision, device)
    return PRECISIONS['fp32' if chosen == 'fp16' else chosen]


def _under(part: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = f'{part}.'
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _running_mean(decay: float) -> Callable[[Any, Any, torch.Tensor], None]:
    """Return the update of a running mean that forgets fast at first: it starts at random."""

    def update(mean: Any, weights: Any, count: torch.Tensor) -> None:
        early = (1.0 + int(count)) / (10.0 + int(count))
        get_ema_multi_avg_fn(min(decay, early))(mean, weights, count)

    return update


def learning_rate_factor(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then polynomial decay (power 0.9) to the final rate."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    left = 1.0 - (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    floor = recipe.final_learning_rate / recipe.learning_rate
    return floor + (1.0 - floor) * max(0.0, left) ** 0.9
