"""What came out, to look at: tables, training curves, and questions with their answers.

Writes into one folder:

    index.html           everything on one page that can be passed on: pictures are inside it
    contact-sheet.png    pictures, questions, the model's rationales and answers
    curves.png           loss of every stage of every run
    table.md             accuracy of every run in every bucket and skill
"""

from collections.abc import Sequence
from pathlib import Path

from mmcot_data.files import write_bytes
from mmcot_data.question_data import read_data
from mmcot_data.questions import Question
from pipelines.report_figures import SHEET_SIZE, draw_contact_sheet, draw_curves
from pipelines.report_page import make_page
from pipelines.reported_runs import ReportedRun, accuracy_table, skill_table

__all__ = ["write_report"]

_MAX_CARDS = 60


def write_report(folder: Path, runs: Sequence[ReportedRun], data: Path) -> Path:
    """Write the report; the last of ``runs`` is the one whose answers are shown.

    Args:
        folder: Of the report; its files are replaced.
        runs: Finished runs on the same test split.
        data: The data set, for its pictures.

    Returns:
        The page, ``index.html``.
    """
    shown = runs[-1]
    pictures = {
        image.question_id: image.path
        for image in read_data(data).images
        if image.role == "question"
    }
    chosen = _choose(shown, _MAX_CARDS)
    curves = draw_curves(runs)
    sheet = draw_contact_sheet(shown, chosen[:SHEET_SIZE], pictures)
    tables = [accuracy_table(runs), skill_table(runs)]
    write_bytes(folder / "curves.png", curves)
    write_bytes(folder / "contact-sheet.png", sheet)
    markdown = "\n\n".join(_markdown(table) for table in tables) + "\n"
    write_bytes(folder / "table.md", markdown.encode())
    write_bytes(folder / "index.html", make_page(tables, curves, shown, chosen, pictures).encode())
    return folder / "index.html"


def _choose(run: ReportedRun, limit: int) -> list[Question]:
    """Questions of every skill in turn, those with a picture first, in the order of the split."""
    by_skill: dict[str, list[Question]] = {}
    for question in sorted(run.questions, key=lambda q: not q.has_image):
        by_skill.setdefault(question.skill, []).append(question)
    chosen: list[Question] = []
    depth = 0
    while len(chosen) < min(limit, len(run.questions)):
        chosen += [skill[depth] for skill in by_skill.values() if depth < len(skill)]
        depth += 1
    return chosen[:limit]


def _markdown(table: Sequence[Sequence[str]]) -> str:
    header, *rows = table
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
