"""
The limit of the machine: counted work over measured rates.

Work is what no implementation can avoid: the operations of matrix products, convolutions and
attention; every weight read once; every result of those operations written and read once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from llm_mde_core.bench.clock import Stages, seconds_of
from llm_mde_core.device import PRECISIONS


@dataclass(frozen=True)
class Work:
    """What one frame needs: floating-point operations, and numbers moved to or from memory."""

    flop: float
    numbers: float

    def limit_s(self, rates: Rates) -> float:
        """Return the shortest possible time, the slower of computing and moving."""
        bytes_moved = self.numbers * PRECISIONS[rates.precision].itemsize
        return max(self.flop / rates.flop_per_s, bytes_moved / rates.bytes_per_s)


@dataclass(frozen=True)
class Rates:
    """What the machine was measured to reach at a precision."""

    precision: str
    flop_per_s: float  # of a large matrix product
    bytes_per_s: float  # read plus written, of a large copy


def count_work(run: Callable[[], object]) -> Work:
    """Count the work of an eager call in fp32, after one that fills its caches."""
    run()
    with _Counter() as counter:
        run()
    return Work(flop=counter.flop, numbers=counter.numbers)


class Yardstick:
    """A large matrix product and a large copy, to be measured in turns with everything else."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device, self.precision = device, precision
        side = 1024 if device.type == 'cpu' else 8192
        self._matrix = torch.rand(side, side, device=device).to(PRECISIONS[precision])
        self._source = torch.rand(2**24 if device.type == 'cpu' else 2**28, device=device)
        self._target = torch.empty_like(self._source)

    def multiply(self) -> Stages:
        """Run the product."""
        return {'total': seconds_of(lambda: self._matrix @ self._matrix, self.device)}

    def copy(self) -> Stages:
        """Run the copy."""
        return {'total': seconds_of(lambda: self._target.copy_(self._source), self.device)}

    def rates(self, *, product_s: float, copy_s: float) -> Rates:
        """Return the rates that follow from the times of the two."""
        return Rates(
            precision=self.precision,
            flop_per_s=2 * len(self._matrix) ** 3 / product_s,
            bytes_per_s=2 * self._source.nbytes / copy_s,
        )


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Sees every operation of torch that is executed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.flop = 0.0
        self.numbers = 0.0
        self._known: set[int] = set()  # storages that this call made, or that are counted
        # torch knows no formula for its fused attention on the CPU
        self._formulas = {
            **flop_registry,
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None:
            with self:  # in inference mode linear layers arrive whole
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        results = _tensors(result)
        if formula is not None:
            self.flop += formula(*args, **kwargs, out_val=result)
            self._count_weights(args)
            self.numbers += 2 * results[0].numel()
        views_of = {_storage(tensor) for tensor in _tensors(args)}
        self._known.update({_storage(tensor) for tensor in results} - views_of)
        return result

    def _count_weights(self, args: Any) -> None:
        """Count what was there before the call, once."""
        for tensor in _tensors(args):
            if _storage(tensor) not in self._known:
                self._known.add(_storage(tensor))
                self.numbers += tensor.numel()


def _attention_flop(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object
) -> int:
    flop = sdpa_flop_count(  # type: ignore[no-untyped-call]  # torch's
        query.shape, key.shape, value.shape
    )
    return int(flop)


def _tensors(values: Any) -> list[torch.Tensor]:
    values = values if isinstance(values, tuple | list) else [values]
    return [value for value in values if isinstance(value, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
