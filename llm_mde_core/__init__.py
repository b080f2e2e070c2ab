"""
LLM-MDE: metric depth from one image, without ROS.

Names are imported when first used, so that a program that needs only a `Camera` does not wait
for torch. Importing `llm_mde_core.model`, as every model class here does, registers the
architecture with transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_mde_core.config import LLMMDEConfig
    from llm_mde_core.estimator import DepthEstimator
    from llm_mde_core.geometry import Camera, back_project, resize_depth
    from llm_mde_core.image import LLMMDEImageProcessor
    from llm_mde_core.lora import add_lora, load_adapter
    from llm_mde_core.model import LLMMDEForDepthEstimation, LLMMDEOutput
    from llm_mde_core.prediction import DepthPrediction

_HOMES = {
    'Camera': 'geometry',
    'DepthEstimator': 'estimator',
    'DepthPrediction': 'prediction',
    'LLMMDEConfig': 'config',
    'LLMMDEForDepthEstimation': 'model',
    'LLMMDEImageProcessor': 'image',
    'LLMMDEOutput': 'model',
    'add_lora': 'lora',
    'back_project': 'geometry',
    'load_adapter': 'lora',
    'resize_depth': 'geometry',
}
__all__ = [
    'Camera',
    'DepthEstimator',
    'DepthPrediction',
    'LLMMDEConfig',
    'LLMMDEForDepthEstimation',
    'LLMMDEImageProcessor',
    'LLMMDEOutput',
    'add_lora',
    'back_project',
    'load_adapter',
    'resize_depth',
]


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
