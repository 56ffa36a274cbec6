"""An environment of Prefect's own for these tests, a server in it, and a drawn data set."""

import gc
import os
import tempfile

import pytest

from mmcot_data.sample import draw_sample

_HOME = tempfile.TemporaryDirectory(prefix="mmcot-prefect-", ignore_cleanup_errors=True)


def _isolate():
    """Before prefect is imported: nothing of the user's settings, nothing sent outside."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ |= {
        "PREFECT_HOME": _HOME.name,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


_isolate()


@pytest.fixture(scope="module")
def prefect_server():
    """A temporary server, for the one module whose tests run a flow in this process.

    Prefect leaves connections open; what is left of them goes while that module ignores it.
    """
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield
    gc.collect()


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "sample"
    draw_sample(folder, num_questions=100, num_workers=1)
    return folder
