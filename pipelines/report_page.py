"""The report's page: one HTML file with its pictures inside."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mmcot_data.images import decode_rgb
from mmcot_data.questions import Question
from pipelines.reported_runs import ReportedRun, answered, is_right, letter, options, rationale

__all__ = ["make_page"]


def make_page(
    tables: Sequence[Sequence[Sequence[str]]],
    curves: bytes,
    run: ReportedRun,
    questions: Sequence[Question],
    pictures: Mapping[str, Path],
) -> str:
    """The page as HTML.

    Args:
        tables: By bucket and by skill, each with a header row.
        curves: PNG of the training curves.
        run: Whose answers are shown.
        questions: Which questions are shown.
        pictures: Picture file by question id.
    """
    cards = "\n".join(_card(run, question, pictures) for question in questions)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>mmcot report</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}</style></head><body>
<h1>mmcot report</h1>
<p>Accuracy in percent on the test split. Rows are runs; columns are ScienceQA's buckets: natural,
social and language science; questions with a text hint, with an image, with neither; grades 1-6
and 7-12; all.</p>
{_html_table(tables[0])}
<h2>By skill</h2>
<p>Image questions cannot be answered from their text: a run without features stays at chance.</p>
{_html_table(tables[1])}
<h2>Training</h2>
<img class="curves" alt="training loss by step" src="{_data_uri(curves)}">
<h2>Questions, rationales and answers of “{html.escape(run.title)}”</h2>
<div class="cards">{cards}</div>
</body></html>
"""


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px; padding: 0 1rem;
  color: #1c1e21; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.curves { max-width: 100%; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 1rem; }
.card { border: 1px solid #ddd; border-radius: 10px; padding: .9rem; font-size: 14px; }
.card .picture { height: 150px; display: flex; align-items: center; justify-content: center; }
.card img { max-width: 100%; max-height: 150px; }
.card .none { color: #999; }
.card p { margin: .4rem 0; }
.card .options { color: #555; }
.right { color: #1b7f3b; font-weight: 600; }
.wrong { color: #b3261e; font-weight: 600; }
"""


def _html_table(table: Sequence[Sequence[str]]) -> str:
    header, *rows = table
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _card(run: ReportedRun, question: Question, pictures: Mapping[str, Path]) -> str:
    picture = '<span class="none">text only</span>'
    if question.question_id in pictures:
        path = pictures[question.question_id]
        image = decode_rgb(path.read_bytes(), str(path))
        image.thumbnail((360, 300), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        picture = f'<img alt="" src="{_data_uri(buffer.getvalue())}">'
    right = is_right(run, question)
    verdict = "right" if right else f"wrong, it is {letter(question.answer)}"
    return f"""<div class="card"><div class="picture">{picture}</div>
<p><b>{html.escape(question.question)}</b></p>
<p class="options">{html.escape(options(question))}</p>
<p>{html.escape(rationale(run, question))}</p>
<p class="{"right" if right else "wrong"}">answers {answered(run, question)}: {verdict}</p></div>"""


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
