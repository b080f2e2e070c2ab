"""Figures of one frame as a llm_mde_msgs/DepthStats message, where that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header

from llm_mde_ros.frame_counters import FrameCounters

if TYPE_CHECKING:  # the network takes seconds to import
    from llm_mde_core.estimator import DepthPrediction

try:
    from llm_mde_msgs.msg import DepthStats
except ImportError:  # without its own messages the node works and leaves out `stats`
    DepthStats = None


def depth_stats(
    prediction: DepthPrediction,
    *,
    depth_m: np.ndarray,
    header: Header,
    counters: FrameCounters,
    convert_s: float,
    latency_s: float,
) -> DepthStats:
    """Fill the message; depth_m is what is published of the prediction, NaN where unknown."""
    known = depth_m[np.isfinite(depth_m)]
    low, median, high = np.percentile(known, (0, 50, 100)) if known.size else [np.nan] * 3
    return DepthStats(
        header=header,
        preprocess_s=prediction.stage_s['preprocess'],
        network_s=prediction.stage_s['network'],
        postprocess_s=prediction.stage_s['postprocess'],
        convert_s=convert_s,
        latency_s=latency_s,
        valid_fraction=known.size / depth_m.size,
        depth_min_m=float(low),
        depth_median_m=float(median),
        depth_max_m=float(high),
        confidence_mean=float(prediction.confidence.mean()),
        prompt=prediction.prompt,
        depth_class=prediction.depth_class,
        frames_received=counters.received,
        frames_published=counters.published,
        frames_skipped=counters.skipped,
        frames_dropped=counters.dropped_total,
    )
