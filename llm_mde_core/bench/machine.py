"""What a figure belongs to: the machine, the versions, the commit; and its energy meter."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

import torch

LIBRARIES = ('torch', 'transformers', 'numpy', 'onnxruntime')


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what decides the speed, and how busy the machine was."""
    on_cuda = device.type == 'cuda'
    return {
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None,
        'threads': torch.get_num_threads(),
        'system': platform.platform(),
        'device': torch.cuda.get_device_name(device) if on_cuda else device.type,
        'load_average_1min': round(os.getloadavg()[0], 2) if hasattr(os, 'getloadavg') else None,
        'omp_wait_policy': os.environ.get('OMP_WAIT_POLICY', ''),
        'gomp_spincount': os.environ.get('GOMP_SPINCOUNT', ''),
    }


def describe_versions(device: torch.device) -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed."""
    versions = {'python': platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if device.type == 'cuda':
        versions['cuda'] = str(torch.version.cuda)
    return versions


def git_commit(file: Path = Path(__file__)) -> str:
    """
    Return the commit of the code in `file`, with '-dirty' for changes beyond it; or 'unknown'.

    Unknown is also what was installed inside of a repository that does not track it: that
    repository's commit would say nothing about the code.
    """
    try:
        _git('ls-files', '--error-unmatch', file.name, folder=file.parent)
        return _git(
            'describe', '--always', '--abbrev=40', '--exclude=*', '--dirty', folder=file.parent
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def energy_meter(device: torch.device) -> Callable[[], float | None]:
    """Return what reads the joules that the GPU has used; None each time where it cannot."""
    if device.type != 'cuda':
        return lambda: None
    try:
        import pynvml  # nvidia-ml-py, not needed for anything else
    except ImportError:
        return lambda: None
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f'GPU-{uuid}')
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:  # a GPU that does not report it
        return lambda: None
    return lambda: 1e-3 * float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def _git(*arguments: str, folder: Path) -> str:
    command = ['git', *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
