"""The frames that an adaptation works with: few, decoded once, and each for one purpose."""

from __future__ import annotations

from dataclasses import dataclass

from llm_mde_train.batches import rendered_samples
from llm_mde_train.samples import Frame, Sample
from llm_mde_train.shots import pick_shots, split_blocks, spread

REPLAY_SEED, UNSEEN_SEED = 271_828_182, 314_159_265  # apart from training's and from each other
REPLAY_FRAMES, UNSEEN_FRAMES = 24, 12
VALIDATION_FRAMES, TEST_FRAMES = 12, 48  # at most; evenly spread over their blocks


@dataclass(frozen=True)
class Material:
    """The decoded frames that an adaptation works with."""

    shots: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    replay: list[Sample]  # of other rooms, to learn from
    unseen: list[Sample]  # of other rooms, to judge what was forgotten


def prepare(frames: list[Frame], *, shots: int, replay: list[Frame] | None) -> Material:
    """
    Decode what is needed, once; rooms are rendered when there is no other replay.

    ValueError for too few frames, of the room or to replay.
    """
    blocks = split_blocks(frames)
    if replay is None:
        others = rendered_samples(REPLAY_SEED, REPLAY_FRAMES)
        unseen = rendered_samples(UNSEEN_SEED, UNSEEN_FRAMES)
    else:
        chosen = spread(replay, REPLAY_FRAMES + UNSEEN_FRAMES)
        if len(chosen) < 2:
            raise ValueError(f'replay needs at least two frames, there are {len(chosen)}')
        loaded = [frame.load() for frame in chosen]
        cut = -(-len(loaded) * REPLAY_FRAMES // (REPLAY_FRAMES + UNSEEN_FRAMES))
        others, unseen = loaded[:cut], loaded[cut:]
    return Material(
        shots=pick_shots(blocks.shots, shots),
        validation=[frame.load() for frame in spread(blocks.validation, VALIDATION_FRAMES)],
        test=[frame.load() for frame in spread(blocks.test, TEST_FRAMES)],
        replay=others,
        unseen=unseen,
    )
