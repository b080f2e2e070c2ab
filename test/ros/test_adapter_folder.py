"""What is known of an adapter, and where it may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llm_mde_ros.model_loading import (
    adapter_warnings,
    check_allowed,
)
from llm_mde_ros.parameters import DepthNodeParameters


@pytest.mark.parametrize(
    ('metrics', 'warned'),
    [
        ('{"worthwhile": false}', True),
        ('{"worthwhile": true}', False),
        ('{"worthwhile": null}', False),
        ('{}', False),
        ('[]', False),
        ('{"worthwhile": fal', False),
        ('[' * 100_000, False),
        ('\N{GREEK SMALL LETTER DELTA}', False),
    ],
)
def test_only_a_clear_verdict_warns(tmp_path: Path, metrics: str, warned: bool):
    assert adapter_warnings(str(tmp_path)) == ()
    (tmp_path / 'metrics.json').write_text(metrics)
    assert bool(adapter_warnings(str(tmp_path))) == warned


def test_only_folders_inside_of_the_allowed_one_can_be_asked_for(tmp_path: Path):
    allowed, outside = tmp_path / 'allowed', tmp_path / 'allowed_not'
    (allowed / 'inside').mkdir(parents=True)
    outside.mkdir()
    (allowed / 'way_out').symlink_to(outside)
    (tmp_path / 'way_in').symlink_to(allowed / 'inside')
    anywhere = DepthNodeParameters()
    bounded = DepthNodeParameters(allowed_folder=str(allowed))

    def refused(settings: DepthNodeParameters, **asked: str) -> bool:
        try:
            check_allowed(replace(settings, **asked), known={'started_with'})
        except ValueError as error:
            return f'allowed_folder ({allowed})' in str(error)
        return False

    for good in ('inside', 'inside/../inside'):
        assert not refused(bounded, adapter=str(allowed / good))
    for bad in (outside, allowed / 'way_out', allowed / '..', allowed / 'inside/../..', '/', '~'):
        assert refused(bounded, adapter=str(bad)), bad
        assert refused(bounded, model=str(bad)), bad
        assert not refused(anywhere, adapter=str(bad), model=str(bad))
    assert not refused(bounded, adapter=str(tmp_path / 'way_in'))
    assert not refused(bounded, adapter='', model='tiny')
    assert not refused(bounded, adapter='started_with', model='started_with')
    assert refused(bounded, adapter='tiny')


def test_what_is_no_folder_of_its_own_files_cannot_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    allowed = tmp_path / 'allowed'
    for name in ('good', 'mixed'):
        (allowed / name).mkdir(parents=True)
        (allowed / name / 'config.json').symlink_to(allowed / 'file')
    (allowed / 'file').touch()
    (allowed / 'mixed' / 'model.safetensors').symlink_to(tmp_path / 'secret')
    (allowed / 'loop').symlink_to(allowed / 'loop')
    bounded = DepthNodeParameters(allowed_folder=str(allowed))
    monkeypatch.chdir(allowed)

    check_allowed(replace(bounded, model='good'), known=())
    of_the_hub = 'someone/model@' + 'f' * 40
    for name in ('mixed', 'loop', 'file', 'missing', of_the_hub, '~nobody', 'x' * 5000):
        with pytest.raises(ValueError, match='allowed_folder'):
            check_allowed(replace(bounded, model=name), known=())
        with pytest.raises(ValueError, match='allowed_folder'):
            check_allowed(replace(bounded, adapter=str(allowed / name)), known=())
