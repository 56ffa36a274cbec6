"""Pieces of the text on Prefect's pages: keys, links, tables and commands in markdown."""

import re
from collections.abc import Mapping
from uuid import UUID

__all__ = ["artifact_key", "artifact_link", "command_text", "run_link", "summary_table"]


def artifact_key(*parts: str) -> str:
    """Key of an artifact: lowercase letters, digits and single dashes, which is what Prefect takes.

    Args:
        *parts: Texts that name it.
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def artifact_link(text: str, key: str) -> str:
    """A link to an artifact's page, from any page of the same server, however it is reached."""
    return f"[{text}](/artifacts/key/{key})"


def run_link(text: str, flow_run: UUID) -> str:
    """A link to the page of a flow run."""
    return f"[{text}](/runs/flow-run/{flow_run})"


def summary_table(rows: Mapping[str, str | None]) -> str:
    """A table of two columns; rows without a value are left out."""
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def command_text(*lines: str) -> str:
    """Lines to copy."""
    return "\n".join(["```", *lines, "```"])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
