"""Numbers as people read them: counts, sizes, times and rates."""

__all__ = ["bytes_text", "count_text", "duration_text", "rate_text"]

_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def count_text(number: float) -> str:
    """``21,208``."""
    return f"{number:,.0f}"


def bytes_text(nbytes: float) -> str:
    """``999 bytes``, ``1.1 GB``: decimal units, as disks are sold."""
    size = float(nbytes)
    for unit in _SIZES[:-1]:
        if size < 999.95 or (unit == "bytes" and size < 1000):
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} {_SIZES[-1]}"


def duration_text(seconds: float) -> str:
    """``4.2 s``, ``45 s``, ``12 min``, ``3 h 20 min``, ``2 days 4 h``: the two largest units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} day{'s' if hours >= 48 else ''} {hours % 24} h"


def rate_text(per_second: float) -> str:
    """``0.25``, ``4.2``, ``1,234``: two digits at least."""
    if per_second >= 99.5:
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"
