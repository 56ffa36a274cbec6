"""Ask the mirrors of Hugging Face's hub and the hub itself, until one of them tells."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from mmcot_data.downloads.addresses import shown_url
from mmcot_data.downloads.failures import (
    RefusedError,
    TransientError,
    explain_error,
    explain_status,
)
from mmcot_data.downloads.fetch_settings import FetchSettings
from mmcot_data.downloads.job import DownloadJob
from mmcot_data.errors import DownloadError

__all__ = ["ask_endpoints"]

_T = TypeVar("_T")


def ask_endpoints(job: DownloadJob, ask: Callable[[str | None], _T], what: str) -> _T:
    """Ask the mirrors and then the hub; those that are busy or can't be reached, again.

    Args:
        job: The download.
        ask: Asks one endpoint, None for the hub itself. Raises ``RefusedError`` if what that one
            says is of no use.
        what: What is asked for.

    Raises:
        DownloadError: If none tells.
    """
    settings = job.settings or FetchSettings()
    open_endpoints: list[str | None] = [mirror.rstrip("/") for mirror in job.config.mirrors]
    open_endpoints.append(None)
    reasons: dict[str | None, str] = {}
    num_tries = 0
    while open_endpoints:
        num_tries += 1
        busy: list[str | None] = []
        delay = min(settings.first_delay * 2 ** (num_tries - 1), settings.longest_delay)
        for number, endpoint in enumerate(open_endpoints):
            try:
                return ask(endpoint)
            except (OSError, httpx2.HTTPError, RefusedError) as error:
                failure = _explain(error)
            reasons[endpoint] = str(failure)
            if isinstance(failure, TransientError):
                most = settings.num_connect_tries if failure.unreachable else settings.num_tries
                if num_tries < most:
                    busy.append(endpoint)
                asked = min(failure.retry_after or 0.0, settings.longest_asked_delay)
                delay = max(delay, asked)
            if following := open_endpoints[number + 1 :]:
                job.reports.say(
                    f"{what}: not from {_shown(endpoint)} ({failure}), asking "
                    f"{_shown(following[0])}"
                )
        open_endpoints = busy
        if busy:
            job.reports.say(f"no server tells {what}, trying again in {delay:.1f} s")
            time.sleep(delay)
    lines = [f"{_shown(endpoint)}: {reason}" for endpoint, reason in reasons.items()]
    raise DownloadError(
        f"no server tells {what}:\n  " + "\n  ".join(lines) + "\ncheck the network and proxies, "
        "name a mirror with --mirror, or take --source official"
    )


def _shown(endpoint: str | None) -> str:
    return shown_url(httpx2.URL(endpoint or constants.ENDPOINT))


def _explain(error: Exception) -> TransientError | RefusedError:
    """Why an endpoint does not tell: without the error's own text, which may hold its password."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, HfHubHTTPError):
        return explain_status(error.response)
    if isinstance(error, httpx2.RequestError):
        return explain_error(error)
    reason = error.strerror if isinstance(error, OSError) else None
    return TransientError(reason or type(error).__name__)
