"""What the tests of the app group share."""

import logging
from collections.abc import Iterator

import pytest


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def errors() -> Iterator[list[logging.LogRecord]]:
    """What the package logs in the test, from warnings on."""
    recorder = _Recorder()
    logger = logging.getLogger("quattro_web")
    logger.addHandler(recorder)
    yield recorder.records
    logger.removeHandler(recorder)
