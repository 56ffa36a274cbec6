"""Names that stay inside the folder that they are put in."""

import re

__all__ = ["why_unsafe"]

_LONGEST = 255  # bytes of a part, on the usual file systems


def why_unsafe(name: str) -> str | None:
    """What is wrong with the relative name of a file; None if it can be used.

    Args:
        name: With forward slashes.
    """
    parts = name.split("/")
    if name.startswith("/"):
        return "it is an absolute path"
    if re.match("[A-Za-z]:", name):
        return "it begins with a drive letter"
    if "\\" in name:
        return "it has a backslash"
    if ".." in parts:
        return "it leads out of the folder"
    if "" in parts or "." in parts:
        return "it has an empty part"
    if any(ord(letter) < 32 for letter in name):
        return "it has a control character"
    if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST for part in parts):
        return "it is too long"
    return None
