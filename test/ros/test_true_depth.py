import numpy as np
from rclpy.serialization import serialize_message
import small_bags

from llm_mde_ros.bags import BagMessage
from llm_mde_ros.true_depth import abs_rel, match_stamps


def message(stamp_ms: float) -> BagMessage:
    header = small_bags.header_at(round(stamp_ms * 1e6))
    return BagMessage('/x', 'std_msgs/msg/Header', 0, serialize_message(header))


def test_abs_rel_of_known_depths():
    true_m = np.array([[2.0, 4.0, np.nan, 20.0, 0.05]], np.float32)
    depth_m = np.array([[2.2, 3.0, 1.0, 1.0, 1.0]], np.float32)
    # 20 m and 5 cm are outside of what depth cameras can tell, NaN is unknown
    np.testing.assert_allclose(abs_rel(depth_m, true_m), (0.1 + 0.25) / 2, rtol=1e-6)
    assert np.isnan(abs_rel(depth_m, np.full_like(true_m, np.nan)))
    assert np.isnan(abs_rel(np.full_like(true_m, np.nan), true_m))


def test_stamps_are_matched_to_the_nearest_within_20_ms():
    depths = [message(t) for t in (100, 133, 166, 300, 400)]
    trues = [message(t) for t in (81, 104, 129, 150, 181, 321, 395, 402)]
    pairs = [(d.stamp_ns // 10**6, t.stamp_ns // 10**6) for d, t in match_stamps(depths, trues)]
    assert pairs == [(100, 104), (133, 129), (166, 181), (400, 402)]


def test_a_true_image_may_serve_two_depth_images():
    pairs = list(match_stamps([message(100), message(110)], [message(105)]))
    assert len(pairs) == 2
