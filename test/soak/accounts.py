"""What became of every image of a soak, what the node's process held, and whether that is good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from sensor_msgs.msg import Image

from llm_mde_ros.parameters import DepthNodeParameters

# As /diagnostics names them: every image that the node receives meets one.
FATES = ('published', 'skipped', 'rate limited', 'unwanted', 'dropped')
REFUSED = ('dropped: image', 'dropped: camera_info')  # what bad images and calibrations meet
FIRST, LAST = (0.25, 0.45), (0.8, 1.0)  # of the run; caches fill before
MAX_MEMORY_DRIFT = 0.02
# Of the run: the node is not restarted, so that what a life of it piles up is seen. What it holds
# then depends on what it last received and sent: 5 % of noise.
ONE_LIFE, MAX_LIFE_DRIFT = (0.45, 0.8), 0.1
UNITS_M = {'32FC1': ('=f4', 1.0), '16UC1': ('=u2', 0.001)}
MAX_GROWTH = 0  # threads, file descriptors


@dataclass
class Accounts:
    """The images that the camera sent, by stamp, and how often the node says it met each fate."""

    good: set[int] = field(default_factory=set)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # of these: width, height
    bad: set[int] = field(default_factory=set)
    unheard: int = 0  # sent while the node received none: off, or nobody listened to it
    answered: set[int] = field(default_factory=set)  # their depth arrived
    wrong: list[str] = field(default_factory=list)  # outputs that should not be
    failed: list[str] = field(default_factory=list)  # requests with a wrong answer
    fates: Counter[str] = field(default_factory=Counter)
    good_dropped: int = 0
    _bad_settled: int = 0

    @property
    def sent(self) -> int:
        """Return how many images the node should have received."""
        return len(self.good) + len(self.bad)

    @property
    def received(self) -> int:
        """Return how many images the node says it received."""
        return self.fates['received']

    def settle(self, fates: Counter[str]) -> None:
        """
        Take the counts of a moment when no image is on its way.

        What was dropped since the last one is good, but for as many as were bad and refused.
        """
        new = fates - self.fates
        refused = sum(new[reason] for reason in REFUSED)
        self.good_dropped += new['dropped'] - min(refused, len(self.bad) - self._bad_settled)
        self.fates, self._bad_settled = fates, len(self.bad)

    def take_output(self, topic: str, stamp_ns: int) -> None:
        """Judge an output by its stamp."""
        if stamp_ns not in self.good:
            kind = 'a bad image' if stamp_ns in self.bad else 'no image'
            self.wrong.append(f'{topic} answers {kind} ({stamp_ns})')
        elif topic == 'depth/image':
            self.answered.add(stamp_ns)

    def take_depth(self, depth: Image, stamp_ns: int) -> None:
        """Judge a depth image by its stamp, and by what is in it when its image was good."""
        self.take_output('depth/image', stamp_ns)
        fault = fault_of_depth(depth, self.sizes.get(stamp_ns))
        if stamp_ns in self.good and fault:
            self.wrong.append(f'depth/image {fault} ({stamp_ns})')


def fault_of_depth(depth: Image, size: tuple[int, int] | None) -> str:
    """Say what is wrong with the depth of an image of this size (width, height), or ''."""
    if (depth.width, depth.height) != size:
        return f'has {depth.width} x {depth.height} pixels, not {size}'
    if depth.encoding not in UNITS_M:
        return f'has the encoding {depth.encoding!r}'
    kind, unit_m = UNITS_M[depth.encoding]
    if len(depth.data) != depth.width * depth.height * np.dtype(kind).itemsize:
        return f'has {len(depth.data)} bytes'
    depth_m = np.frombuffer(depth.data, kind)[::10] * unit_m
    known = depth_m[~np.isnan(depth_m) & (depth_m != 0)]
    limits = DepthNodeParameters()
    if not ((known > limits.depth_min_m - 0.001) & (known < limits.depth_max_m + 0.001)).all():
        return f'is from {known.min()} to {known.max()} m'
    return ''


def counts_of(report: Mapping[str, str]) -> Counter[str]:
    """Read from the values of /diagnostics what became of how many images."""
    names = {'received', *FATES, *(name for name in report if name.startswith('dropped: '))}
    return Counter({name: int(report.get(name, 0)) for name in names})


def without_fate(counts: Counter[str]) -> int:
    """Return how many images were received and are still on their way, or lost."""
    return counts['received'] - sum(counts[fate] for fate in FATES)


class Vitals(NamedTuple):
    """What a process holds at a moment (Linux)."""

    second: float  # of the run
    memory_mib: float  # of its own: DDS's shared memory fills up to the size of its segments
    threads: int
    file_descriptors: int

    @classmethod
    def of(cls, pid: int, *, second: float) -> Vitals:
        """Read them of a running process."""
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
        status = dict(line.split(':', 1) for line in lines)
        return cls(
            second=second,
            memory_mib=int(status['RssAnon'].split()[0]) / 1024,
            threads=int(status['Threads']),
            file_descriptors=len(list(Path(f'/proc/{pid}/fd').iterdir())),
        )


def during(
    samples: Sequence[Vitals], part: tuple[float, float], what: str, *, end_s: float
) -> list[float]:
    """Return a figure over a part of a run that took `end_s`."""
    return [
        getattr(sample, what)
        for sample in samples
        if part[0] * end_s <= sample.second <= part[1] * end_s
    ]


class Row(NamedTuple):
    """One line of the table; `broken` says which bound it does not keep."""

    name: str
    figure: str
    broken: str = ''


def verdict(accounts: Accounts, samples: Sequence[Vitals], rests: Sequence[Vitals]) -> list[Row]:
    """Return all figures of a run: `samples` of every second, `rests` in one same state."""
    fates = accounts.fates
    dropped = sorted(name for name in fates if name.startswith('dropped: '))
    return [
        Row('good images sent', f'{len(accounts.good)}'),
        Row('bad images sent', f'{len(accounts.bad)}'),
        Row('sent while nobody listened or the node was off', f'{accounts.unheard}'),
        _none('lost on the way to the node', accounts.sent - accounts.received),
        *(Row(fate, f'{fates[fate]}') for fate in ('received', *FATES)),
        *(Row(name, f'{fates[name]}') for name in dropped),
        _none('received without a fate', without_fate(fates)),
        _none('published depth that did not arrive', fates['published'] - len(accounts.answered)),
        _none('good images dropped', accounts.good_dropped),
        _none('outputs from bad input', len(accounts.wrong)),
        _none('requests with a wrong answer', len(accounts.failed)),
        _memory(rests, samples),
        _memory_of_one_life(samples),
        _growth(samples, 'threads'),
        _growth(samples, 'file_descriptors'),
    ]


def _none(name: str, count: int) -> Row:
    return Row(name, f'{count}', '' if count == 0 else 'must be 0')


def _memory(rests: Sequence[Vitals], samples: Sequence[Vitals]) -> Row:
    most, end_s = max(sample.memory_mib for sample in samples), samples[-1].second
    first, last = (during(rests, part, 'memory_mib', end_s=end_s) for part in (FIRST, LAST))
    if not (first and last):
        return Row('memory at rest', f'too short a run to tell, at most {most:.1f} MiB')
    before, after = median(first), median(last)
    drift = after / before - 1
    is_kept = drift <= MAX_MEMORY_DRIFT
    return Row(
        'memory at rest',
        f'{before:.1f} -> {after:.1f} MiB ({drift:+.2%}), at most {most:.1f}',
        '' if is_kept else f'must not grow by {MAX_MEMORY_DRIFT:.0%}',
    )


def _memory_of_one_life(samples: Sequence[Vitals]) -> Row:
    (start, end), end_s = ONE_LIFE, samples[-1].second
    third = (end - start) / 3
    before, after = (
        median(during(samples, part, 'memory_mib', end_s=end_s))
        for part in ((start, start + third), (end - third, end))
    )
    drift, minutes = after / before - 1, (end - start) * end_s / 60
    return Row(
        'memory without restarts',
        f'{before:.1f} -> {after:.1f} MiB ({drift:+.2%}) in {minutes:.0f} minutes',
        '' if drift <= MAX_LIFE_DRIFT else f'must not grow by {MAX_LIFE_DRIFT:.0%}',
    )


def _growth(samples: Sequence[Vitals], what: str) -> Row:
    end_s = samples[-1].second
    before, after = (median(during(samples, part, what, end_s=end_s)) for part in (FIRST, LAST))
    is_kept = after - before <= MAX_GROWTH
    name = what.replace('_', ' ')
    return Row(name, f'{before:g} -> {after:g}', '' if is_kept else 'must not grow')


def table(rows: Sequence[Row]) -> str:
    """Return the figures as lines of Markdown."""
    lines = ['| figure | value | bound |', '| --- | ---: | --- |']
    for name, figure, broken in rows:
        lines.append(f'| {name} | {figure} | {"BROKEN: " + broken if broken else ""} |')
    return '\n'.join(lines)
