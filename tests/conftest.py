"""What holds for all tests."""

import logging

import pytest


def pytest_collection_modifyitems(items):
    """Begin with the longest, or one process ends with it while the other has nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("server") is None)


@pytest.fixture(autouse=True)
def loggers_are_heard():
    """Libraries that configure logging in this process, as Prefect does, may have silenced ours."""
    logging.disable(logging.NOTSET)
    for name, logger in logging.root.manager.loggerDict.items():
        is_ours = name.partition(".")[0] in ("mmcot_data", "mmcot_model")
        if is_ours and isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)
