"""What the core logs is in the log of the node, and only while it works."""

import logging

from llm_mde_ros.core_log import core_log


class Log:
    def __init__(self) -> None:
        self.sentences: list[tuple[str, str]] = []

    def info(self, sentence: str) -> None:
        self.sentences.append(('info', sentence))

    def warning(self, sentence: str) -> None:
        self.sentences.append(('warning', sentence))


def test_the_log_of_the_core_is_handed_on() -> None:
    log, core = Log(), logging.getLogger('llm_mde_core.compiled')
    with core_log(log):
        core.debug('Not this.')
        core.info('Compiling for %d x %d …', 6, 4)
        core.warning('The network is not compiled.')
    core.warning('Nor this.')
    assert log.sentences == [
        ('info', 'Compiling for 6 x 4 …'),
        ('warning', 'The network is not compiled.'),
    ]
