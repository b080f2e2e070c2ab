"""LLM-MDE: metric depth from one image, without ROS."""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation

from llm_mde_core.config import LLMMDEConfig
from llm_mde_core.estimator import DepthEstimator, DepthPrediction
from llm_mde_core.geometry import Camera, back_project, resize_depth
from llm_mde_core.image import LLMMDEImageProcessor
from llm_mde_core.lora import add_lora, load_adapter
from llm_mde_core.model import LLMMDEForDepthEstimation, LLMMDEOutput

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

AutoConfig.register(LLMMDEConfig.model_type, LLMMDEConfig)
AutoModelForDepthEstimation.register(LLMMDEConfig, LLMMDEForDepthEstimation)
AutoImageProcessor.register(LLMMDEConfig, image_processor_classes={'pil': LLMMDEImageProcessor})
