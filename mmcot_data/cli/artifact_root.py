"""The artifact root that a command writes into, as an argument."""

import argparse
from pathlib import Path

from mmcot_data.errors import MmcotError

__all__ = ["artifact_root"]


def artifact_root(text: str) -> Path | str:
    """For ``type=``: a folder, or a URL such as ``s3://bucket/shards``.

    Raises:
        argparse.ArgumentTypeError: If it is a URL that can't be written to.
    """
    from mmcot_data.shards.writable import find_root

    try:
        return find_root(text)
    except MmcotError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
