"""How patient fetching is."""

from dataclasses import dataclass

__all__ = ["FetchSettings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchSettings:
    """Time limits and retries; the defaults suit slow and busy servers."""

    connect_timeout: float = 15.0
    """Seconds that it may take to reach a server."""
    read_timeout: float = 60.0
    """Seconds without a byte after which a server counts as stalled."""
    num_tries: int = 8
    """Failures in a row, without a new byte between them, after which a file is given up."""
    num_connect_tries: int = 4
    """The same for a server that cannot be reached at all."""
    first_delay: float = 0.5
    """Seconds before another try; doubled with each failure in a row."""
    longest_delay: float = 30.0
    longest_asked_delay: float = 300.0
    """Limit of what a server may ask for with Retry-After, in seconds."""
    resumable_nbytes: int = 2**20
    """Smaller files begin anew in another run; within one run every file is resumed."""
