"""What holds for all tests."""

import logging

import pytest


@pytest.fixture(autouse=True)
def loggers_speak():
    """Libraries that configure logging in this process may have silenced ours."""
    logging.disable(logging.NOTSET)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("mmcot_") and isinstance(logger, logging.Logger):
            logger.disabled = False
