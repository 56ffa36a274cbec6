"""What ``mmcot-data inspect`` prints."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console

    from mmcot_data.inspection import FeatureStatistics, ValueStatistics
    from mmcot_data.inspection.summary import FeatureSetSummary, ListedFeatureSet

__all__ = ["print_list", "print_statistics", "print_summary"]


def print_list(root: str, listed: Sequence["ListedFeatureSet"]) -> None:
    """The feature sets of an artifact root, one a line."""
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("feature set", "encoder", "model", "row", "rows", "size", "state", title=root)
    for item in listed:
        spec = item.spec
        made = ("", "", "")
        if spec is not None:
            made = (spec.encoder, spec.model_id, f"{spec.num_patches} x {spec.feature_dim}")
        table.add_row(item.name, *made, str(item.num_rows), decimal(item.nbytes), item.state)
    _console().print(table)


def print_summary(summary: "FeatureSetSummary") -> None:
    """What made a feature set, and what it holds."""
    from rich.filesize import decimal
    from rich.table import Table

    spec, plan = summary.spec, summary.plan
    weights = f"sha256 {spec.weights_sha256[:12]}…" if spec.weights_sha256 else "not known"
    if spec.random_weights is not None:
        weights += f", random with seed {spec.random_weights}"
    grid = "no place in the picture"
    if spec.grid is not None:
        grid = f"the last {math.prod(spec.grid)} on a grid of {spec.grid[0]} x {spec.grid[1]}"
    steps = [f"{n}. {_describe_step(step)}" for n, step in enumerate(spec.preprocessing, 1)]
    error = "" if spec.precision_error is None else f" ({spec.precision_error:.1e} from fp32)"
    lines = {
        "encoder": spec.encoder,
        "model": spec.model_id,
        "revision": spec.revision or "not known",
        "weights": weights,
        "layer": spec.layer,
        "preprocessing": "\n".join(steps),
        "precision": f"{spec.precision}{error} with {spec.backend}, stored as {spec.dtype}",
        "versions": _join(spec.versions, "{key} {value}") or "not known",
        "licence": spec.data_licence,
        "row": f"{spec.num_patches} patches x {spec.feature_dim} features; {grid}",
        "format": f"{plan.format}, version {summary.format_version}",
        "questions": f"{summary.num_questions} with pictures, "
        f"{summary.num_questions_with_features} with features",
        "pictures": f"{summary.num_pictures}: {_join(summary.roles, '{value} {key}')}",
        "failed": _join(summary.failed, "{value} {key}") or "none",
        "rows": f"{summary.num_rows} distinct pictures",
        "shards": f"{summary.num_shards} of up to {plan.shard_size} rows, "
        f"{decimal(summary.nbytes)} in all",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in lines.items():
        table.add_row(name, value)
    console = _console()
    console.print(summary.path)
    console.print(table)


def _describe_step(step: Any) -> str:
    if not isinstance(step, Mapping):
        return str(step)
    rest = {key: value for key, value in step.items() if key != "step"}
    return f"{step.get('step', '')} ({_join(rest, '{key} {value}')})" if rest else str(step["step"])


def _join(items: Mapping[str, Any], template: str) -> str:
    return ", ".join(template.format(key=key, value=value) for key, value in items.items())


def print_statistics(statistics: "FeatureStatistics") -> None:
    """All values, and the least, median and greatest of the feature dimensions."""
    from rich.table import Table

    table = Table("", "mean", "std", "zeros", "min", "max", title="statistics")
    table.add_row("all values", *_format(statistics.overall))
    for name, choose in (("least", np.min), ("median", np.median), ("greatest", np.max)):
        table.add_row(f"{name} dimension", *_format(statistics.dimensions, choose))
    console = _console()
    console.print(table)
    console.print(
        f"{statistics.num_rows} rows, {statistics.num_patches} patches, of "
        f"{len(statistics.dimensions.mean)} dimensions {statistics.num_constant} constant"
    )


def _format(values: "ValueStatistics[Any]", choose: Callable[[Any], Any] = float) -> Iterator[str]:
    for name in ("mean", "std", "zero_share", "minimum", "maximum"):
        number = choose(getattr(values, name))
        yield f"{number:.2%}" if name == "zero_share" else f"{number:.4g}"


def _console() -> "Console":
    from rich.console import Console

    return Console(markup=False, highlight=False)
