"""The running node loads what few-shot adaptation wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from llm_mde_core import Camera, DepthEstimator
from llm_mde_ros.conversions import image_to_depth
from llm_mde_ros.stats import DepthStats
from llm_mde_train.adapted_parts import make_adaptable, save_adapter
from llm_mde_train.few_shot_trainer import FewShotTrainer, Tuning
from llm_mde_train.samples import Sample
from llm_mde_train.shot_batches import ShotBatches

TRUE_M = 1.5
FOCAL_PX = 60.0


def test_adapter_lowers_the_error_that_the_node_publishes(
    robot_with: Any, tiny_model_dir: Path, rgb: np.ndarray, tmp_path: Path
):
    model = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu').model
    height, width = rgb.shape[:2]
    truth_m = np.full((height, width), TRUE_M, np.float32)
    camera = Camera(width, height, FOCAL_PX, FOCAL_PX, (width - 1) / 2, (height - 1) / 2)
    shot = Sample(rgb=rgb, depth_m=truth_m, camera=camera, scene='room')
    tuning = Tuning(steps=15, lora_rate=0.01, rate=0.01, shots_per_batch=2)
    trainer = FewShotTrainer(make_adaptable(model, train='lora_head'), tuning)
    batches = ShotBatches(
        [shot], [], config=model.config, shots_per_batch=2, replay_per_batch=0, seed=0
    )

    def error(estimator: DepthEstimator) -> float:
        return float(np.abs(estimator.infer(rgb, camera).depth_m - TRUE_M).mean())

    trainer.run(batches.next, error)
    save_adapter(trainer.best(), tmp_path / 'room', model=str(tiny_model_dir))

    with robot_with({'model': tiny_model_dir, 'device': 'cpu'}) as robot:
        robot.wait_for(lambda: robot.state() == 'active', 'active node', timeout_s=120.0)
        robot.listen('depth/image')
        before = image_to_depth(robot.answer('depth/image', robot.show(rgb, fx=FOCAL_PX)))
        assert robot.transition('deactivate')
        camera_topic = robot.camera(Image, 'image', listened=False)
        robot.wait_for(lambda: camera_topic.get_subscription_count() == 0, 'unsubscribing')
        robot.unplug()
        assert robot.transition('cleanup')
        assert robot.set_parameter('adapter', str(tmp_path / 'room')).successful
        assert robot.transition('configure')
        assert robot.transition('activate')
        robot.listen('depth/image', *(['stats'] if DepthStats else []))
        after = image_to_depth(robot.answer('depth/image', robot.show(rgb, fx=FOCAL_PX)))
        if DepthStats:
            assert robot.answer('stats', robot.stamp_ns).adapter == str(tmp_path / 'room')
    assert np.abs(after - TRUE_M).mean() < 0.5 * np.abs(before - TRUE_M).mean()
