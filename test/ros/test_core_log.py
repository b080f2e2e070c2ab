"""What the core logs is in the log of the node, and only while it works."""

import logging
from types import SimpleNamespace

import pytest

from llm_mde_ros.core_log import core_log


def test_the_log_of_the_core_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest would report what it hears, and its workers send nothing that is no UTF-8.
    monkeypatch.setattr(logging.getLogger('llm_mde_core'), 'propagate', False)
    infos: list[str] = []
    warnings: list[str] = []
    core = logging.getLogger('llm_mde_core.compiled')
    with core_log(SimpleNamespace(info=infos.append, warning=warnings.append)):
        core.debug('Not this.')
        core.info('Compiling for %d x %d …', 6, 4)
        core.warning('The network is not compiled.')
        core.warning('Half of a character: %s', '\ud800')
    core.warning('Nor this.')
    assert infos == ['Compiling for 6 x 4 …']
    assert warnings == ['The network is not compiled.', r'Half of a character: \ud800']
