"""What is cut of the texts of a run, in figures and in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmcot_data.tokens import EncodedText
from mmcot_data.truncation import Truncation

__all__ = ["CutReport", "TextCuts"]

_CUT_OFF = "cut off at the end"


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCuts:
    """How many texts exceed a limit, and by how much they are shortened."""

    limit: int
    """Most tokens of a text; one that just reaches it is whole."""
    num: int
    num_cut: int
    tokens_cut: int
    """In all of them together."""
    most_tokens_cut: int
    """In one of them."""

    @classmethod
    def of(cls, texts: Sequence[EncodedText], limit: int) -> "TextCuts":
        """Count what was cut of texts."""
        cut = [text.num_cut for text in texts if text.num_tokens > limit]
        return cls(
            limit=limit,
            num=len(texts),
            num_cut=len(cut),
            tokens_cut=sum(cut),
            most_tokens_cut=max(cut, default=0),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CutReport:
    """What is cut of sources and targets."""

    truncation: Truncation
    """How sources are cut; targets lose their ends."""
    sources: TextCuts
    source_parts: Mapping[str, int]
    """In how many sources each part is not whole; parts that are whole in all are not listed."""
    targets: TextCuts | None
    """None where the targets are not read."""

    @classmethod
    def of(
        cls,
        sources: Sequence[EncodedText],
        max_source: int,
        truncation: Truncation,
        targets: Sequence[EncodedText],
        max_target: int | None,
    ) -> "CutReport":
        """Count what was cut; ``max_target`` is None where the targets are not read."""
        parts = Counter(part for source in sources for part in source.cut_parts)
        return cls(
            truncation=truncation,
            sources=TextCuts.of(sources, max_source),
            source_parts=dict(sorted(parts.items(), key=lambda part: (-part[1], part[0]))),
            targets=None if max_target is None else TextCuts.of(targets, max_target),
        )

    def to_json(self) -> dict[str, Any]:
        """The figures, for files."""
        return asdict(self)

    def sentences(self, *, target_flag: str | None = None) -> list[str]:
        """What is cut, for people; empty if nothing is.

        Args:
            target_flag: The option of the command that raises the limit of targets.
        """
        said = []
        if self.sources.num_cut:
            how = "shortened" if self.truncation == "keep" else _CUT_OFF
            parts = [f", the {name} in {number}" for name, number in self.source_parts.items()]
            said.append(_sentence("sources", self.sources, how + "".join(parts), "--max-source"))
        if self.targets is not None and self.targets.num_cut:
            said.append(_sentence("targets", self.targets, _CUT_OFF, target_flag))
        return said


def _sentence(name: str, cuts: TextCuts, how: str, flag: str | None) -> str:
    text = f"{cuts.num_cut} of {cuts.num} {name} "
    if cuts.num_cut == 1:
        text += f"is longer than {cuts.limit} tokens: it is {how}; {cuts.tokens_cut} tokens in all"
    else:
        text += (
            f"are longer than {cuts.limit} tokens: they are {how}; "
            f"{cuts.tokens_cut} tokens in all, at most {cuts.most_tokens_cut} of one"
        )
    return text if flag is None else f"{text}; {flag} raises the limit"
