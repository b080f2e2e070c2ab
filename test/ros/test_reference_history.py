import pytest
from sensor_msgs.msg import Image, LaserScan
from std_msgs.msg import Header

from llm_mde_ros import reference_history
from llm_mde_ros.reference_history import MAX_MESSAGES, ReferenceHistory


def scan_at(stamp_ms, **fields):
    return LaserScan(header=header_at(stamp_ms), **fields)


def header_at(stamp_ms):
    header = Header()
    header.stamp.sec, header.stamp.nanosec = stamp_ms // 1000, stamp_ms % 1000 * 1_000_000
    return header


def filled(*stamps_ms):
    history = ReferenceHistory()
    for stamp_ms in stamps_ms:
        history.add(scan_at(stamp_ms))
    return history


@pytest.mark.parametrize(
    ('stamp_ms', 'offset_ms'), [(1100, 0), (1140, -40), (1160, 40), (500, 500), (9200, -8000)]
)
def test_the_nearest_message_is_found_with_its_offset(stamp_ms, offset_ms):
    message, offset_s = filled(1000, 1100, 1200).nearest(header_at(stamp_ms))
    assert offset_s == pytest.approx(offset_ms / 1000)
    assert message.header.stamp == header_at(stamp_ms + offset_ms).stamp


def test_an_empty_history_has_no_nearest():
    history = filled(1000)
    history.clear()
    assert history.nearest(header_at(1000)) is None


def test_a_message_from_the_past_makes_the_later_ones_go():
    _, offset_s = filled(5000, 5100, 1000).nearest(header_at(5000))
    assert offset_s == -4.0


def test_the_history_forgets_by_number():
    _, offset_s = filled(*range(1000, 1000 + MAX_MESSAGES + 5)).nearest(header_at(0))
    assert offset_s == 1.005


def test_the_history_forgets_by_size_but_keeps_the_newest(monkeypatch):
    monkeypatch.setattr(reference_history, 'MAX_BYTES', 1000)
    history = ReferenceHistory()
    for stamp_ms in (1000, 1100, 1200):
        history.add(Image(header=header_at(stamp_ms), data=bytes(400)))
    assert history.nearest(header_at(0))[1] == 1.1
    history.add(scan_at(1300, ranges=[1.0] * 1000))
    assert history.nearest(header_at(0))[1] == 1.3
