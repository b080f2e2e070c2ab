"""Train the adapter on shots and replay; validation frames say which step was the best."""

from __future__ import annotations

from collections.abc import Callable
import copy
from dataclasses import dataclass, field
import time

from peft import PeftModel
import torch

from llm_mde_core import DepthEstimator
from llm_mde_train.batches import Batch
from llm_mde_train.losses import LossWeights, total_loss
from llm_mde_train.trainer import clip_gradients

FINAL_RATE = 0.02  # of the learning rates, at the end
NEARLY_BEST = 1.2  # times the best AbsRel: few frames validate, and later weights are steadier


@dataclass(frozen=True)
class Tuning:
    """
    How the adapter is trained; ValueError for a budget of nothing.

    The learning rates fall to nearly nothing over `steps` or over `minutes`, whichever ends
    first: a slow machine makes fewer steps, not an unfinished schedule. Training stops before that
    when what validation found best is `patience` validations old.
    """

    steps: int = 400
    minutes: float = 3.5
    shots_per_batch: int = 4
    replay_per_batch: int = 1
    lora_rate: float = 1.5e-3
    rate: float = 1e-3  # of the parts that are trained in full
    warmup_steps: int = 10
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.97
    validations: int = 8
    patience: int = 4
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.minutes <= 0.0:
            raise ValueError(
                f'training needs time: {self.steps} steps in {self.minutes} minutes are none'
            )


@dataclass(frozen=True)
class Validation:
    """What the averaged weights did after a number of steps."""

    step: int
    loss: float  # mean since the last validation, NaN at the start
    abs_rel: float


def best_of(history: list[Validation]) -> Validation:
    """Return the last validation that is nearly as good as any, or the first if none beats it."""
    enough = NEARLY_BEST * min(validation.abs_rel for validation in history)
    first, *later = history
    good = [v for v in later if v.abs_rel <= enough and v.abs_rel < first.abs_rel]
    return good[-1] if good else first


def gains_no_more(history: list[Validation], *, patience: int) -> bool:
    """Return whether none of the last validations is the one to keep."""
    return best_of(history) not in history[-patience:]


class FewShotTrainer:
    """A peft model that learns, and the running mean of its weights, which is what is judged."""

    def __init__(self, network: PeftModel, tuning: Tuning) -> None:
        self.network = network.train()
        self.tuning = tuning
        self.device = network.get_base_model().device
        self.canonical_focal_px = network.get_base_model().config.canonical_focal_px
        trained = {name: w for name, w in network.named_parameters() if w.requires_grad}
        self.trained = list(trained.values())
        factors = [weight for name, weight in trained.items() if 'lora_' in name]
        others = [weight for name, weight in trained.items() if 'lora_' not in name]
        self.optimizer = torch.optim.AdamW(
            [
                {'params': weights, 'lr': rate, 'full_rate': rate}
                for weights, rate in ((factors, tuning.lora_rate), (others, tuning.rate))
                if weights
            ],
            weight_decay=tuning.weight_decay,
            betas=(0.9, 0.98),
        )
        self.averaged = copy.deepcopy(network)
        self._averages = [w for w in self.averaged.parameters() if w.requires_grad]
        self.estimator = DepthEstimator(
            self.averaged.get_base_model(),
            device=str(self.device),
            precision='fp32',
            compile='off',
        )

    def run(
        self,
        next_batch: Callable[[], Batch],
        validate: Callable[[DepthEstimator], float],
        *,
        notify: Callable[[float, Validation], None] = lambda done, last: None,
    ) -> list[Validation]:
        """
        Train to the end of the budget and leave the best averaged weights to `best`.

        `validate` returns the AbsRel of an estimator; `notify` is told after each step what part
        of the budget is spent (0 to 1) and the last validation. Returns all validations, that of
        the model as it came first. Raises DivergenceError.
        """
        history = [Validation(step=0, loss=float('nan'), abs_rel=validate(self.estimator))]
        best_weights = self._kept_averages()
        losses: list[float] = []
        started, done, step = time.monotonic(), 0.0, 0
        while done < 1.0:
            losses.append(self._step(next_batch(), step=step, done=done))
            step += 1
            spent_minutes = (time.monotonic() - started) / 60.0
            done = max(step / self.tuning.steps, spent_minutes / self.tuning.minutes)
            if done * self.tuning.validations >= len(history):
                mean_loss = sum(losses) / len(losses)
                losses.clear()
                history.append(Validation(step, mean_loss, validate(self.estimator)))
                if best_of(history) is history[-1]:
                    best_weights = self._kept_averages()
                elif gains_no_more(history, patience=self.tuning.patience):
                    done = 1.0
            notify(min(done, 1.0), history[-1])
        self._set_averages(best_weights)
        return history

    def best(self) -> PeftModel:
        """Return the network with the weights that validation found best."""
        for average in self._averages:
            average.requires_grad_(True)  # the estimator took that away
        return self.averaged

    def _step(self, batch: Batch, *, step: int, done: float) -> float:
        """Learn from one batch when a part `done` of the budget is spent; return its loss."""
        warm = min(1.0, (step + 1) / self.tuning.warmup_steps)
        factor = warm * (FINAL_RATE + (1.0 - FINAL_RATE) * (1.0 - done) ** 0.9)
        for group in self.optimizer.param_groups:
            group['lr'] = group['full_rate'] * factor
        focal_px = batch.focal_px.to(self.device)
        pixels = batch.rgb.to(self.device).permute(0, 3, 1, 2).float() / 255.0
        loss, _ = total_loss(
            self.network(pixel_values=pixels, focal_px=focal_px),
            depth_m=batch.depth_m.to(self.device),
            canonical_ratio=self.canonical_focal_px / focal_px,
            weights=self.tuning.weights,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(self.trained, largest_norm=self.tuning.clip_norm)
        self.optimizer.step()
        self._average(step)
        return loss.item()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Follow the weights, closely at first: the mean shall not remember the start for long."""
        decay = min(self.tuning.ema_decay, (1.0 + step) / (10.0 + step))
        for average, weight in zip(self._averages, self.trained, strict=True):
            average.lerp_(weight, 1.0 - decay)

    def _kept_averages(self) -> list[torch.Tensor]:
        return [average.detach().clone() for average in self._averages]

    @torch.no_grad()
    def _set_averages(self, weights: list[torch.Tensor]) -> None:
        for average, weight in zip(self._averages, weights, strict=True):
            average.copy_(weight)
