"""Calls to a store that are repeated as long as what went wrong may pass."""

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from textwrap import shorten
from typing import TypeVar

from mmcot_data.errors import ShardError

__all__ = ["StoreError", "diagnose", "persist"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_LONGEST_DELAY = 60.0
_ENDPOINT = re.compile(r"(the endpoint|endpoint) URL: \"[^\"]*\"")


class StoreError(ShardError, OSError):
    """A store did not answer, or a claim was lost: the same work may succeed later."""


async def persist(
    call: Callable[[], Awaitable[_T]],
    problem: str,
    *,
    delays: Sequence[float],
    longest_attempt: float,
) -> _T:
    """Await a call again and again, until it succeeds or there is no hope.

    Args:
        call: Makes what is awaited.
        problem: The beginning of errors and warnings, as ``cannot read s3://…``.
        delays: Seconds before each further attempt; a little more or less is waited, so that
            many processes do not come back at once.
        longest_attempt: Seconds that one attempt may take.

    Raises:
        StoreError: If every attempt failed for a reason that may pass.
        ShardError: If another attempt would fail, too.
    """
    further = iter(delays)
    while True:
        try:
            async with asyncio.timeout(longest_attempt):
                return await call()
        except ShardError:
            raise
        except Exception as error:
            reason, is_transient = diagnose(error)
            if not is_transient:
                raise ShardError(f"{problem}: {reason}") from error
            delay = next(further, None)
            if delay is None:
                raise StoreError(f"{problem}: {reason}") from error
            asked = str((getattr(error, "headers", None) or {}).get("Retry-After", ""))
            delay = min(max(delay, float(asked) if asked.isdecimal() else 0.0), _LONGEST_DELAY)
            logger.warning("%s: %s; again in %.1f s", problem, reason, delay)
        await asyncio.sleep(delay * random.uniform(1.0, 1.25))


def diagnose(error: Exception) -> tuple[str, bool]:
    """What went wrong, in words, and whether another attempt may succeed."""
    # aiohttp and gcsfs put the HTTP status into the error, botocore into its response; s3fs makes
    # botocore's error the cause.
    status = getattr(error, "status", None) or getattr(error, "code", None)
    for each in (error, error.__cause__):
        if isinstance(response := getattr(each, "response", None), dict):
            status = response["ResponseMetadata"]["HTTPStatusCode"]
    text = shorten(_ENDPOINT.sub("the endpoint", str(error)), 500)
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the URL", False
    if status == 416:
        return "the file is shorter than expected; upload it again", False
    if (
        status in (401, 403)
        or isinstance(error, PermissionError)
        or "Credentials" in type(error).__name__  # botocore and google.auth found none
        or text.startswith("Forbidden")  # gcsfs
    ):
        return (
            f"access is refused ({text}); set credentials in the environment or storage_options, "
            "for a public bucket {'anon': True} or FSSPEC_S3_ANON=true (s3), {'token': 'anon'} or "
            "FSSPEC_GS_TOKEN=anon (gs)"
        ), False
    is_final = isinstance(error, TypeError | ValueError) or (
        isinstance(status, int)
        and (status < 500 or status == 501)
        and status not in (408, 409, 429)
    )
    return f"{type(error).__name__}: {text}", not is_final
