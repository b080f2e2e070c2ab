"""Where the network runs and how: device, precision, whether it is compiled."""

from __future__ import annotations

import re

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D  # the linear layer of GPT-2

from llm_mde_core.head import DepthAndSpread

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
COMPILE_CHOICES = ('auto', 'on', 'off')
CAST_BY_AUTOCAST = (nn.Linear, Conv1D, nn.Conv2d, nn.ConvTranspose2d)
# Of CUDA, for memory of the host that is pinned, too; of cuBLAS; of cuDNN 8 and 9.
NO_MEMORY = re.compile(r'out of memory|_ALLOC(ATION)?_FAILED')
LOST = re.compile(r'\b(CUDA|HIP) error: ')


def choose_device(device: str) -> torch.device:
    """Return the device; 'auto' takes CUDA, MPS or the CPU. ValueError when it is missing."""
    if device == 'auto':
        if torch.cuda.is_available():
            return torch.device('cuda')
        return torch.device('mps' if torch.backends.mps.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device {device!r} is not one of 'auto', 'cpu', 'cuda', 'cuda:N', 'mps'"
        ) from error
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'device {device!r} was asked for but torch sees {torch.cuda.device_count()} CUDA '
            "devices: use 'cpu' or 'auto'"
        )
    if chosen.type == 'mps' and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' was asked for but is not available: use 'cpu' or 'auto'")
    return chosen


def choose_precision(precision: str, device: torch.device) -> str:
    """Return the precision; 'auto' is bf16 where the hardware has it, fp16 on other GPUs."""
    if precision == 'auto':
        if device.type == 'cuda':
            return 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'fp16'
        return 'bf16' if device.type == 'cpu' and _processor_has_bf16() else 'fp32'
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be 'auto' or one of {sorted(PRECISIONS)}, not {precision!r}"
        )
    return precision


def _processor_has_bf16() -> bool:
    # Older versions of torch cannot tell.
    able: dict[str, bool] = getattr(torch.cpu, 'get_capabilities', dict)()
    return bool(able.get('amx_bf16') or able.get('avx512_bf16'))


def is_out_of_memory(error: BaseException) -> bool:
    """
    Return whether an error says that the GPU, or what works on it, got no memory.

    torch has a class for its own allocations alone; those of the libraries that it calls, and what
    inductor makes of any of them, are told apart by their words.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None


def is_lost(error: BaseException) -> bool:
    """Return whether the GPU did what no later work in this process survives, such as a fault."""
    is_of_gpu = isinstance(error, RuntimeError) and LOST.search(str(error)) is not None
    return is_of_gpu and not is_out_of_memory(error)


def lay_out(model: nn.Module, *, dtype: torch.dtype) -> None:
    """
    Make once of the weights what would else be made of them for every frame.

    Convolutions get their channels last. What autocast would cast to `dtype` is cast; the outputs
    stay the same, for what it computes in fp32, such as norms and embeddings, is left so.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's
    if dtype == torch.float32:
        return
    for module in model.modules():
        if isinstance(module, CAST_BY_AUTOCAST) and not isinstance(module, DepthAndSpread):
            module.to(dtype)


def choose_compile(compile: str, device: torch.device) -> bool:
    """Return whether to compile; 'auto' does so on CUDA."""
    if compile not in COMPILE_CHOICES:
        raise ValueError(f'compile must be one of {COMPILE_CHOICES}, not {compile!r}')
    return compile == 'on' or (compile == 'auto' and device.type == 'cuda')
