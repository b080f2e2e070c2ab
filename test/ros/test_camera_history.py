"""Which CameraInfo of a bag belongs to an image."""

from dataclasses import replace

import pytest
from sensor_msgs.msg import RegionOfInterest
import small_bags

from llm_mde_ros.bags import BagReader
from llm_mde_ros.camera_history import CameraHistory


def test_camera_info_that_was_recorded_late_still_belongs_to_its_image(tmp_path):
    recorded = [
        small_bags.info(0, fx=60.0, delay_ns=50_000_000),
        small_bags.info(1, fx=60.0, delay_ns=50_000_000),
        small_bags.info(2, fx=80.0, delay_ns=50_000_000),
    ]
    with BagReader(small_bags.write_rosbag2(tmp_path / 'bag', recorded)) as reader:
        history = CameraHistory(reader, small_bags.INFO)
    infos = [at(history, n) for n in (-1, 0, 1, 1.9, 2, 9)]
    assert [info.k[0] for info in infos] == [60.0, 60.0, 60.0, 60.0, 80.0, 80.0]
    assert infos[0] is infos[3]  # only changes are kept


def at(history: CameraHistory, number: float, *, played_ns: int = 0):
    """Return the CameraInfo of an image of this number, in a bag that was played again."""
    stamp_ns = small_bags.START_NS + round(number * small_bags.PERIOD_NS)
    time_ns = stamp_ns + small_bags.RECORDING_DELAY_NS + played_ns
    return history.at(stamp_ns=stamp_ns, time_ns=time_ns)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('roi', RegionOfInterest(x_offset=8, y_offset=4, width=64, height=48)),
        ('binning_x', 2),
        ('r', [0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        ('d', [0.1] * 5),
    ],
)
def test_all_that_a_calibration_says_can_change(tmp_path, name, value):
    recorded = [small_bags.info(0), small_bags.info(1)]
    setattr(recorded[1].message, name, value)
    with BagReader(small_bags.write_rosbag2(tmp_path / 'bag', recorded)) as reader:
        history = CameraHistory(reader, small_bags.INFO)
    before, after = (at(history, number) for number in (0, 1))
    assert repr(getattr(before, name)) == repr(getattr(recorded[0].message, name))
    assert repr(getattr(after, name)) == repr(getattr(recorded[1].message, name))
    assert repr(before) != repr(after)


LOOP_NS = 6_000_000_000


def loop(fx_of_each: list[list[float]]) -> list[small_bags.Recorded]:
    """Return a camera that is played again and again, with a lens that changes."""
    return [
        replace(each, time_ns=each.time_ns + played * LOOP_NS)
        for played, lenses in enumerate(fx_of_each)
        for number, fx in enumerate(lenses)
        for each in (
            small_bags.colour(10 * number),
            small_bags.info(10 * number, fx=fx, delay_ns=50_000_000),  # after its image
        )
    ]


def test_each_image_of_a_loop_has_the_camera_info_of_its_turn(tmp_path):
    lenses = [[60.0, 60.0, 62.0], [70.0, 72.0, 72.0], [80.0, 80.0, 80.0]]
    bag = small_bags.write_rosbag2(tmp_path / 'bag', loop(lenses))
    with BagReader(bag) as reader:
        history = CameraHistory(reader, small_bags.INFO)
    for played, expected in enumerate(lenses):
        for number, fx in enumerate(expected):
            assert at(history, 10 * number, played_ns=played * LOOP_NS).k[0] == fx
            assert at(history, 10 * number + 9, played_ns=played * LOOP_NS).k[0] == fx


def test_a_camera_info_that_overtook_another_is_found_by_its_stamp(tmp_path):
    fx_of = {0: 60.0, 2: 64.0, 1: 62.0, 3: 66.0}
    recorded = [
        replace(small_bags.info(number, fx=fx), time_ns=small_bags.START_NS + index)
        for index, (number, fx) in enumerate(fx_of.items())
    ]
    with BagReader(small_bags.write_rosbag2(tmp_path / 'bag', recorded)) as reader:
        history = CameraHistory(reader, small_bags.INFO)
    assert [at(history, number).k[0] for number in range(4)] == [60.0, 62.0, 64.0, 66.0]
