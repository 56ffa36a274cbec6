"""Arguments that the commands share."""

import argparse
from pathlib import Path

__all__ = ["add_artifacts", "add_producer"]


def add_artifacts(parser: argparse.ArgumentParser) -> None:
    """The artifact root."""
    parser.add_argument(
        "artifacts", type=Path, metavar="ARTIFACTS", help="artifact root, with questions.parquet"
    )


def add_producer(parser: argparse.ArgumentParser, default: str) -> None:
    """The name of the table that is written."""
    parser.add_argument(
        "--producer",
        default=default,
        metavar="NAME",
        help="writes rationales/NAME.parquet (default: %(default)s)",
    )
