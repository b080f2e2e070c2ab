"""Everything that decides what a training run does, in one YAML file."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
import difflib
import inspect
from pathlib import Path
from typing import Any

import yaml

from llm_mde_core import LLMMDEConfig
from llm_mde_train.losses import LossWeights
from llm_mde_train.rosbag_frames import read_bag

TRAIN_CHOICES = ('all', 'lora')
RENDER_DEVICES = ('cpu', 'cuda')
PRECISION_CHOICES = ('auto', 'fp32', 'bf16')
SOURCES = ('index', 'sets', 'bags', 'nyu', 'nyu_list', 'kitti', 'tum')
PARTS = ('vision', 'reprogramming', 'prompt', 'language', 'bottleneck', 'head')


@dataclass(frozen=True)
class Recipe:
    """
    What a training run starts from, sees and does; ValueError for a value that cannot work.

    `train: lora` freezes the backbones, puts LoRA on them and trains the parts between them in
    full; what is saved is a plain model with the factors folded in, and the adapter beside it.
    """

    preset: str = 'tiny'
    overrides: dict[str, Any] = field(
        default_factory=dict
    )  # of the preset, by LLMMDEConfig's names
    start_from: str = ''  # bundled name or model folder; empty starts from the preset
    # Parts that a preset takes from other models: {vision: tiny} or {vision: a folder}.
    parts_from: dict[str, str] = field(default_factory=dict)
    train: str = 'all'  # or 'lora'
    frozen: list[str] = field(default_factory=list)  # parts that `train: all` leaves as they are
    precision: str = 'auto'  # bf16 on GPUs that have it, fp32 elsewhere; or 'fp32', 'bf16'
    losses: dict[str, float] = field(default_factory=dict)  # weights other than LossWeights'
    # Real frames, as in sources.training_frames; without any it learns from rendered rooms alone.
    index: str = ''  # index.csv
    sets: list[str] = field(default_factory=list)  # those of the index to learn from
    # Recordings; {path: …, color_topic: …} where topics, tolerance or range are to be named.
    bags: list[str | dict[str, Any]] = field(default_factory=list)
    nyu: str = ''  # nyu_depth_v2_labeled.mat
    nyu_list: str = ''  # in the format of BTS
    kitti: str = ''
    tum: list[str] = field(default_factory=list)
    real_fraction: float = 0.3
    reuse: int = 3
    render_device: str = 'cpu'  # 'cuda' renders where the model learns, without workers
    steps: int = 2000
    first_image_size: int = 192  # early steps see smaller images, which cost less
    first_steps: int = 0
    batch_size: int = 16  # of all processes together
    cut_depth: float = 0.0  # part of the images that get CutDepth
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.0  # of Muon for linear maps and convolutions; 0: AdamW
    final_learning_rate: float = 1e-5
    warmup_steps: int = 100
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.995
    validate_every: int = 250
    validation_rooms: int = 48
    validation_frames: int = 200  # at most so many of the real frames that are held out
    workers: int = 1
    seed: int = 0
    training_data: str = ''
    weights_license: str = ''  # empty keeps what the model says

    def __post_init__(self) -> None:
        for spec in fields(self):
            default = spec.default_factory() if spec.default is MISSING else spec.default
            _check_type(spec.name, getattr(self, spec.name), type(default))
        if self.train not in TRAIN_CHOICES:
            raise ValueError(f'train must be one of {TRAIN_CHOICES}, not {self.train!r}')
        if self.overrides and self.start_from:
            raise ValueError(
                f'overrides {sorted(self.overrides)} change a preset, '
                f'not the model {self.start_from!r}'
            )
        if self.parts_from and self.start_from:
            raise ValueError(
                f'parts_from {sorted(self.parts_from)} completes a preset, '
                f'not the model {self.start_from!r}'
            )
        _check_names(self.parts_from, list(PARTS), where='parts_from')
        _check_names(self.overrides, _architecture(), where='overrides')
        if self.precision not in PRECISION_CHOICES:
            raise ValueError(
                f'precision must be one of {PRECISION_CHOICES}, not {self.precision!r}'
            )
        if self.render_device not in RENDER_DEVICES:
            raise ValueError(
                f'render_device must be one of {RENDER_DEVICES}, not {self.render_device!r}'
            )
        if self.frozen and self.train != 'all':
            raise ValueError(f'frozen {self.frozen} is for train: all, not {self.train}')
        _check_names(dict.fromkeys(self.frozen), list(PARTS), where='frozen')
        for bag in self.bags:
            if not isinstance(bag, str | dict):
                raise ValueError(f'a bag is a path, or a path with options, not {bag!r}')
            if isinstance(bag, dict):
                _check_names(bag, list(inspect.signature(read_bag).parameters), where='bags')
                if 'path' not in bag:
                    raise ValueError(f'a bag needs its path, got only {sorted(bag)}')
        weights = [spec.name for spec in fields(LossWeights)]
        _check_names(self.losses, weights, where='losses')
        for name in ('real_fraction', 'cut_depth'):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f'{name} must lie in 0 to 1, not {getattr(self, name)}')
        for name in ('reuse', 'steps', 'batch_size', 'validate_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, not {getattr(self, name)}')
        for name in ('validation_rooms', 'validation_frames', 'workers'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must not be negative, it is {getattr(self, name)}')

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML recipe; ValueError names an unknown key and the known one nearest to it."""
        values = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
        _check_names(values, [spec.name for spec in fields(cls)], where=str(path))
        return cls(**values)


def _architecture() -> list[str]:
    names = list(inspect.signature(LLMMDEConfig.__init__).parameters)
    return [name for name in names if name not in ('self', 'kwargs')]


def _check_names(values: dict[str, Any], known: list[str], *, where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'known are {", ".join(known)}'
            raise ValueError(f'{where} has an unknown key {key!r}: {hint}')


def _check_type(name: str, value: Any, wanted: type) -> None:
    if isinstance(value, wanted) or (wanted is float and isinstance(value, int)):
        return
    hint = ' (YAML reads 1e-3 as text: write 1.0e-3)' if wanted is float else ''
    raise ValueError(f'{name} must be {wanted.__name__}, not {value!r}{hint}')
