"""Where the network runs and how: device, precision, whether it is compiled."""

from __future__ import annotations

import torch

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
COMPILE_CHOICES = ('auto', 'on', 'off')


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
    """Return the precision; 'auto' is bf16 (or else fp16) on CUDA and fp32 elsewhere."""
    if precision == 'auto':
        if device.type != 'cuda':
            return 'fp32'
        return 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'fp16'
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be 'auto' or one of {sorted(PRECISIONS)}, not {precision!r}"
        )
    return precision


def choose_compile(compile: str, device: torch.device) -> bool:
    """Return whether to compile; 'auto' does so on CUDA."""
    if compile not in COMPILE_CHOICES:
        raise ValueError(f'compile must be one of {COMPILE_CHOICES}, not {compile!r}')
    return compile == 'on' or (compile == 'auto' and device.type == 'cuda')
