"""Batches: reproducible, of whole patches, mixed and reused as asked for."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llm_mde_core import Camera
from llm_mde_train import batches as module
from llm_mde_train.batches import Batch, MixedBatches, collate, rendered_samples
from llm_mde_train.samples import Sample

REAL_M, RENDERED_M = 1.0, 2.0


def sample(depth_m: float, *, max_depth_m: float = 10.0) -> Sample:
    return Sample(
        rgb=np.full((48, 64, 3), 128, np.uint8),
        depth_m=np.full((48, 64), depth_m, np.float32),
        camera=Camera.from_hfov(width=64, height=48, hfov_deg=60.0),
        scene='real',
        max_depth_m=max_depth_m,
    )


@pytest.fixture
def rendered(monkeypatch) -> list[int]:
    """Replace rendering; return the list to which every call adds its number of rooms."""
    monkeypatch.setattr(module, 'LONG_SIDES', (1.0,))
    counts = []

    def render(seed: int, count: int, *, device: str = 'cpu') -> list[Sample]:
        if count:
            counts.append(count)
        return [sample(RENDERED_M + seed % 1000 / 1e4) for _ in range(count)]

    monkeypatch.setattr(module, 'rendered_samples', render)
    return counts


def mixed(real: list[Sample], **changes) -> MixedBatches:
    options = dict(
        seed=1,
        batch_size=4,
        image_size=64,
        canonical_focal_px=50.0,
        patch_px=16,
        real_fraction=0.5,
        reuse=2,
        first_image_size=32,
        first_steps=0,
    )
    return MixedBatches(real, **(options | changes))


def take(count: int, batches: MixedBatches) -> list[Batch]:
    return list(itertools.islice(batches, count))


def test_same_seed_same_batches_other_seed_others(rendered):
    first, second, other = (take(3, mixed([sample(1.0)], seed=seed)) for seed in (5, 5, 6))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.rgb, two.rgb)
        torch.testing.assert_close(one.depth_m, two.depth_m, equal_nan=True, rtol=0, atol=0)
        assert torch.equal(one.focal_px, two.focal_px)
    assert any(
        one.rgb.shape != two.rgb.shape or not torch.equal(one.rgb, two.rgb)
        for one, two in zip(first, other, strict=True)
    )


@pytest.mark.parametrize('pool_size', [3, 256])
@pytest.mark.parametrize('workers', [1, 2])
def test_a_stream_that_starts_later_goes_on_as_the_whole(
    pool_size, workers, rendered, monkeypatch
):
    """Defect 15: the rooms in the pool and every draw are those of the batch's number."""
    monkeypatch.setattr(module, 'POOL_SIZE', pool_size)

    def stream(start: int, count: int) -> list[Batch]:
        streams = []
        for number in range(workers):
            worker = SimpleNamespace(id=number, num_workers=workers)
            monkeypatch.setattr(module, 'get_worker_info', lambda worker=worker: worker)
            streams.append(take(count, mixed([sample(1.0)], start=start, batch_size=8)))
        return [batch for turn in zip(*streams, strict=True) for batch in turn]

    whole, later = stream(0, 10)[7:17], stream(7, 10)
    for one, two in zip(whole, later, strict=False):
        assert torch.equal(one.rgb, two.rgb)
        torch.testing.assert_close(one.depth_m, two.depth_m, equal_nan=True, rtol=0, atol=0)
        assert torch.equal(one.focal_px, two.focal_px)


def test_types_and_sides_of_whole_patches(rendered):
    shapes = set()
    for batch in take(30, mixed([sample(1.0)])):
        size = batch.rgb.shape[1:3]
        assert batch.rgb.shape == (4, *size, 3)
        assert batch.rgb.dtype == torch.uint8
        assert batch.depth_m.shape == (4, *size)
        assert batch.depth_m.dtype == batch.focal_px.dtype == torch.float32
        assert batch.focal_px.shape == (4,)
        shapes.add(tuple(size))
    assert shapes == {(48, 64), (32, 64), (64, 64), (64, 48)}


def test_first_steps_see_smaller_images(rendered):
    sides = [max(b.rgb.shape[1:3]) for b in take(5, mixed([], first_steps=3))]
    assert sides == [32, 32, 32, 64, 64]


@pytest.mark.parametrize(('number', 'expected'), [(0, [32, 32, 64]), (1, [32, 64, 64])])
def test_workers_share_the_first_steps_and_draw_differently(
    number, expected, rendered, monkeypatch
):
    alone = take(3, mixed([]))
    worker = SimpleNamespace(id=number, num_workers=2)
    monkeypatch.setattr(module, 'get_worker_info', lambda: worker)
    mine = take(3, mixed([], first_steps=3))
    assert [max(batch.rgb.shape[1:3]) for batch in mine] == expected
    if number:
        assert not torch.equal(mine[-1].focal_px, alone[-1].focal_px)


def real_part(batches: list[Batch]) -> float:
    return float(np.mean([np.nanmax(d) == REAL_M for b in batches for d in b.depth_m.numpy()]))


def test_real_fraction(rendered):
    drawn = take(100, mixed([sample(REAL_M)], real_fraction=0.3))
    assert real_part(drawn) == pytest.approx(0.3, abs=0.08)
    assert real_part(take(5, mixed([], real_fraction=0.3))) == 0.0


def test_only_real_frames_need_no_rendering(rendered):
    assert real_part(take(5, mixed([sample(REAL_M)], real_fraction=1.0))) == 1.0
    assert sum(rendered) == 0


@pytest.mark.parametrize('reuse', [1, 4])
def test_rooms_are_reused(reuse, rendered):
    drawn = 30 * 16
    take(30, mixed([], batch_size=16, reuse=reuse))
    later = sum(rendered) - module.FIRST_POOL_SIZE
    assert drawn / later == pytest.approx(reuse)


def test_pool_is_bounded(rendered, monkeypatch):
    monkeypatch.setattr(module, 'POOL_SIZE', 1)
    for batch in take(20, mixed([], reuse=4)):
        assert len({float(np.nanmax(d)) for d in batch.depth_m.numpy()}) == 1  # one room is kept


def test_long_sides_vary_at_one_focal_length(monkeypatch, rendered):
    monkeypatch.setattr(module, 'LONG_SIDES', (1.0, 0.75))
    batches = take(20, mixed([]))
    assert {max(batch.rgb.shape[1:3]) for batch in batches} == {64, 48}


def test_focal_lengths_lie_around_the_canonical_one_or_are_the_shortest_there_is(rendered):
    # The lens is 55.4 px on 64 columns.
    focal = sample(1.0).camera.focal_px
    logs = []
    for batch in take(40, mixed([], canonical_focal_px=100.0)):
        height, width = batch.rgb.shape[1:3]
        assert (batch.focal_px >= 0.95 * focal * max(height / 48, width / 64)).all()
        logs += (batch.focal_px / 100.0).log().tolist()
    assert np.mean(logs) == pytest.approx(0.0, abs=0.05)
    assert np.std(logs) == pytest.approx(module.LENS_SIGMA, abs=0.04)


def test_early_small_images_have_a_focal_length_as_much_shorter(rendered):
    early = take(20, mixed([], canonical_focal_px=100.0, first_steps=20))
    focal_px = torch.cat([batch.focal_px for batch in early])
    assert float(focal_px.log().mean().exp()) == pytest.approx(50.0, rel=0.1)


def test_depth_that_is_not_to_be_trusted_is_unknown(rendered):
    drawn = take(5, mixed([sample(9.0, max_depth_m=8.0)], real_fraction=1.0))
    assert all(batch.depth_m.isnan().all() for batch in drawn)


def test_own_process_keeps_its_threads(rendered):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        take(1, mixed([]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_rendered_samples_are_rooms():
    rooms = rendered_samples(seed=3, count=2)
    assert [room.scene for room in rooms] == ['rendered'] * 2
    assert all(room.depth_m.shape == module.RENDERED_SIZE for room in rooms)
    assert np.isfinite(rooms[0].depth_m).mean() > 0.99
    assert rooms[0].camera != rooms[1].camera
    assert rendered_samples(seed=3, count=0) == []


def test_rooms_are_rendered_where_the_recipe_says(monkeypatch):
    devices, render = [], module.render_rooms

    def on_cpu(*, device: str, **options):
        devices.append(device)
        return render(**options)

    monkeypatch.setattr(module, 'render_rooms', on_cpu)
    monkeypatch.setattr(module, 'FIRST_POOL_SIZE', 1)
    batch = take(1, mixed([], batch_size=2, render_device='cuda'))[0]
    assert devices == ['cuda', 'cuda']
    assert batch.rgb.device.type == 'cpu'


def test_rendered_rooms_become_batches():
    batch = take(1, mixed([], batch_size=2))[0]
    assert batch.rgb.float().std() > 5.0
    assert batch.depth_m.isfinite().float().mean() > 0.8


def test_processes_share_a_batch_of_real_frames(rendered):
    """Together they see what one sees alone."""
    real = [sample(0.5 + n / 10) for n in range(20)]
    whole = take(3, mixed(real, real_fraction=1.0, batch_size=5))
    shares = [
        take(3, mixed(real, real_fraction=1.0, batch_size=5, process=n, processes=2))
        for n in range(2)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [len(part.rgb) for part in parts] == [3, 2]
        for n, part in enumerate(parts):
            assert torch.equal(part.rgb, batch.rgb[n::2])
            assert torch.equal(part.focal_px, batch.focal_px[n::2])


def test_processes_render_rooms_of_their_own_and_their_share(rendered):
    depths = []
    for process in range(2):
        options = dict(batch_size=16, reuse=4, process=process, processes=2)
        batches = take(10, mixed([], **options))
        depths.append({float(np.nanmax(d)) for batch in batches for d in batch.depth_m.numpy()})
    assert len(depths[0] & depths[1]) < 5 < len(depths[0])  # the stand-in has 1000 rooms
    assert rendered == [module.FIRST_POOL_SIZE, *[2] * 10] * 2


@pytest.mark.parametrize(('part', 'expected'), [(0.0, 0.0), (0.4, 0.4), (1.0, 1.0)])
def test_part_of_the_images_gets_cut_depth(part, expected, rendered, monkeypatch):
    monkeypatch.setattr(module, 'cut_depth', lambda rgb, *_, **__: np.zeros_like(rgb))
    batches = take(50, mixed([sample(1.0)], real_fraction=1.0, cut_depth=part))
    black = np.mean([not rgb.any() for batch in batches for rgb in batch.rgb.numpy()])
    assert black == pytest.approx(expected, abs=0.1)


def test_collate_keeps_the_order():
    images = [(s.rgb, s.depth_m, focal) for s, focal in ((sample(1.0), 50.0), (sample(2.0), 60.0))]
    batch = collate(images)
    assert batch.depth_m[:, 0, 0].tolist() == [1.0, 2.0]
    assert batch.focal_px.tolist() == [50.0, 60.0]
