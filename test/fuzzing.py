"""
What the fuzz tests share: how many examples, and files that are nearly what they should be.

FUZZ_EXAMPLES=10000 tries so many for each test, others at every run; without it the same few.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import copy
from datetime import timedelta
import math
import os
from pathlib import Path
import resource
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

WANTED = os.environ.get('FUZZ_EXAMPLES')
UINT32 = st.integers(0, 2**32 - 1)
CHANGES = ['set', 'set', 'cut', 'double', 'put', 'end']
WORDS = [b'\0' * 4, b'\xff' * 4, b'\xff' * 8, b'\x7f\xff\xff\xff']


def fuzz(few: int) -> settings:
    """Return the settings of a test that tries few examples in a usual run."""
    return settings(
        max_examples=int(WANTED or few),
        derandomize=WANTED is None,
        deadline=timedelta(seconds=20),  # none may hang
        database=None,
        print_blob=True,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,
            HealthCheck.data_too_large,
        ],
    )


def mostly(usual: st.SearchStrategy, other: st.SearchStrategy) -> st.SearchStrategy:
    """Return a strategy that takes the other one in a sixth of the draws."""
    return st.sampled_from([usual] * 5 + [other]).flatmap(lambda chosen: chosen)


@st.composite
def damaged_bytes(draw: Any, data: bytes, *, words: tuple[bytes, ...] = ()) -> bytes:
    """Return the bytes with some of them set, cut out, doubled or put in, or without their end."""
    changed = bytearray(data)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3, 8]))):
        at = draw(st.integers(0, 60) | st.integers(0, len(data))) % (len(changed) + 1)
        part = changed[at : at + draw(st.integers(1, 20))]
        change = draw(st.sampled_from(CHANGES))
        put_in = st.sampled_from([*words, *WORDS]) | st.binary(min_size=1, max_size=20)
        if change == 'set':
            new = draw(put_in)
            changed[at : at + len(new)] = new
        elif change == 'cut':
            del changed[at : at + len(part)]
        elif change == 'end':
            del changed[at:]
        else:
            changed[at:at] = part if change == 'double' else draw(put_in)
    return bytes(changed)


ODD_VALUES = (
    st.sampled_from([None, True, False, '', 'x', 0, -1, 1, 2, 10**9, 2**63, 10**30, 0.5, -0.5])
    | st.sampled_from([math.nan, math.inf, -math.inf, 1e300, [], {}, [[]], {'a': 1}, [1], ['x']])
    | st.integers(-5, 300)
    | st.text(max_size=8)
)


@st.composite
def odd_document(draw: Any, document: Any) -> Any:
    """Return a JSON document with some values replaced, left out or added."""
    changed = {'': copy.deepcopy(document)}
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        places = list(_places(changed))
        holder, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(['set', 'set', 'set', 'cut', 'add']))
        if change == 'set' or holder is changed:
            holder[key] = _odd_value(draw)
        elif change == 'cut':
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = _odd_value(draw)
        else:
            holder.append(_odd_value(draw))
    return changed['']


def _odd_value(draw: Any) -> Any:
    return copy.deepcopy(draw(ODD_VALUES))  # the next change may be inside of it


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every holder in a document with the key or index of what it holds."""
    if isinstance(document, (dict, list)):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield document, key
            yield from _places(document[key])


@contextmanager
def little_memory(gibibytes: float) -> Iterator[None]:
    """Let this process fail with MemoryError when it takes so much more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * os.sysconf('SC_PAGE_SIZE') + int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
