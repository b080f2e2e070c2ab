"""Colour and depth from the recordings that robots make: rosbag2 (sqlite3, mcap) and ROS 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_mde_core import Camera
from llm_mde_train.bag_reader import BagReader, Place, open_bag
from llm_mde_train.bag_topics import BagTopics, find_topics
from llm_mde_train.registration import Registration
from llm_mde_train.ros_images import to_depth, to_rgb
from llm_mde_train.samples import Sample
from llm_mde_train.stamp_pairs import pair_stamps, smallest_gap_ns

STORAGE_SUFFIXES = ('.mcap', '.db3', '.bag', '.zstd')


@dataclass(frozen=True)
class BagFrame:
    """A pair of messages in a bag; only where they are is kept, not what they hold."""

    bag: Path
    color_topic: str
    depth_topic: str
    color_place: Place
    depth_place: Place
    camera: Camera
    registration: Registration | None
    scene: str
    max_depth_m: float

    @property
    def stamp_ns(self) -> int:
        """Return the stamp of the colour image."""
        return self.color_place.stamp_ns

    @property
    def name(self) -> str:
        """Return the stamp of the colour image."""
        return f'{self.stamp_ns} ns'

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files of the bag."""
        if self.bag.is_file():
            return (self.bag,)
        return tuple(sorted(f for f in self.bag.iterdir() if f.suffix in STORAGE_SUFFIXES))

    def load(self) -> Sample:
        """Decode both messages; ValueError names the bag and the stamp of a broken one."""
        bag = open_bag(self.bag)
        try:
            rgb = to_rgb(bag.read(self.color_topic, self.color_place))
            depth_m = to_depth(bag.read(self.depth_topic, self.depth_place))
            if self.registration is not None:
                depth_m = self.registration.apply(depth_m)
            return Sample(
                rgb=rgb,
                depth_m=depth_m,
                camera=self.camera,
                scene=self.scene,
                max_depth_m=self.max_depth_m,
                stamp_ns=self.stamp_ns,
            )
        except ValueError as error:
            raise ValueError(f'{self.bag} at {self.stamp_ns} ns: {error}') from error


@dataclass(frozen=True)
class BagFrames:
    """The frames of a bag in the order of their stamps, and what was left over."""

    frames: list[BagFrame]
    topics: BagTopics
    unmatched_color: int
    unmatched_depth: int

    def summary(self) -> str:
        """Return a sentence for people."""
        how = 'registered here' if self.topics.registration else 'as recorded'
        return (
            f'{len(self.frames)} pairs of {self.topics.color} and {self.topics.depth} '
            f'({how}); without a partner: {self.unmatched_color} colour, '
            f'{self.unmatched_depth} depth'
        )


def read_bag(
    path: Path,
    *,
    color_topic: str = '',
    depth_topic: str = '',
    info_topic: str = '',
    tolerance_s: float = 0.03,
    max_depth_m: float = 10.0,
) -> BagFrames:
    """
    List the pairs of a bag whose stamps differ by at most `tolerance_s`; decoded when loaded.

    `path` is a rosbag2 folder, one of its mcap or db3 files, or a ROS 1 bag. Topics that are not
    named are found by their types. The bag is read once for its stamps, one message at a time.
    The name of the file or folder is the scene. Raises ValueError when topics are ambiguous,
    depth cannot be brought onto the colour image, or no stamps are near each other.
    """
    bag = open_bag(path.resolve())
    topics = find_topics(bag, color=color_topic, depth=depth_topic, info=info_topic)
    places = bag.places([topics.color, topics.depth])
    color, depth = places[topics.color], places[topics.depth]
    pairs = _pair(bag, topics, color, depth, tolerance_s=tolerance_s)
    frames = [
        BagFrame(
            bag=bag.path,
            color_topic=topics.color,
            depth_topic=topics.depth,
            color_place=color[c],
            depth_place=depth[d],
            camera=topics.camera,
            registration=topics.registration,
            scene=path.resolve().stem,
            max_depth_m=max_depth_m,
        )
        for c, d in pairs
    ]
    return BagFrames(
        frames=frames,
        topics=topics,
        unmatched_color=len(color) - len(pairs),
        unmatched_depth=len(depth) - len(pairs),
    )


def _pair(
    bag: BagReader,
    topics: BagTopics,
    color: list[Place],
    depth: list[Place],
    *,
    tolerance_s: float,
) -> list[tuple[int, int]]:
    color_ns, depth_ns = (
        np.array([place.stamp_ns for place in each], np.int64) for each in (color, depth)
    )
    pairs = pair_stamps(color_ns, depth_ns, tolerance_ns=round(tolerance_s * 1e9))
    if not pairs:
        raise ValueError(
            f'no {topics.color} and {topics.depth} of {bag.path} lie within {tolerance_s} s: the '
            f'closest are {smallest_gap_ns(color_ns, depth_ns) / 1e9:.3f} s apart; synchronise '
            'the clocks'
        )
    return pairs
