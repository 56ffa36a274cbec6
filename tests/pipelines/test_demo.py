"""`make demo`, shortened: the same steps with few questions and few training steps."""

import pytest

from mmcot_data.shards import open_features
from pipelines.demo import main


@pytest.mark.slow
@pytest.mark.server
def test_demo_runs_and_runs_again(tmp_path, capsys):
    """Would catch a step that needs what an earlier one no longer leaves, and a second run."""
    out = tmp_path / "demo"
    arguments = ["--out", str(out), "--num-questions", "120", "--max-steps", "3"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "$ prefect deployment run extract-features --watch" in printed
    assert "fusion, two stages" in printed
    assert len(open_features(out / "shards" / "tiny")) > 50
    page = (out / "report" / "index.html").read_bytes()
    before = {path: path.read_bytes() for path in out.glob("runs/*/predictions.parquet")}
    assert len(before) == 4
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in out.glob("runs/*/predictions.parquet")} == before
    assert (out / "report" / "index.html").read_bytes() == page
