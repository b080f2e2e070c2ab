"""Figures of one frame as a llm_mde_msgs/DepthStats message, where that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header

from llm_mde_ros.frame_counters import FrameCounters
from llm_mde_ros.frame_times import STAGES, FrameTimes

if TYPE_CHECKING:  # the network takes seconds to import
    from llm_mde_core.prediction import DepthPrediction
    from llm_mde_ros.live_accuracy import LiveAccuracy

try:
    from llm_mde_msgs.msg import DepthStats
except ImportError:  # without its own messages the node works and leaves out `stats`
    DepthStats = None


def depth_stats(
    prediction: DepthPrediction,
    *,
    header: Header,
    counters: FrameCounters,
    times: FrameTimes,
    made_by: tuple[str, str],
    calibrated: bool,
    accuracy: LiveAccuracy,
) -> DepthStats:
    """
    Fill the message; the prediction is what is published, NaN where unknown.

    made_by: model and adapter. calibrated: the camera is from camera_info. accuracy: before
    compare() learns of this frame.
    """
    figures, correction = accuracy.figures(), accuracy.correction
    depth_m = prediction.depth_m
    known = depth_m[np.isfinite(depth_m)]
    low, median, high = np.percentile(known, (0, 50, 100)) if known.size else [np.nan] * 3
    return DepthStats(
        header=header,
        latency_s=times.latency_s,
        age_s=times.age_s,
        **{f'{stage}_s': times.stage_s[stage] for stage in STAGES},
        valid_fraction=known.size / depth_m.size,
        depth_min_m=float(low),
        depth_median_m=float(median),
        depth_max_m=float(high),
        confidence_mean=float(prediction.confidence.mean()),
        model=made_by[0],
        adapter=made_by[1],
        calibrated=calibrated,
        reference_abs_rel=figures.abs_rel,
        reference_bias=figures.bias,
        corrected=correction.changes_depth,
        correction_scale=correction.scale,
        correction_shift_m=correction.shift_m,
        prompt=prediction.prompt,
        depth_class=prediction.depth_class,
        frames_received=counters.received,
        frames_published=counters.published,
        frames_skipped=counters.skipped,
        frames_dropped=counters.dropped_total,
    )
