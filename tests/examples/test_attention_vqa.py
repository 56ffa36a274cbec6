"""The example learns from features what the text does not say; it needs the reading side only."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "attention_vqa.py"
BLOCKED = ("PIL", "transformers", "torchvision", "mmcot_model", "mmcot_data.extraction")


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("attention_vqa", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_table(output):
    """Cells by split and kind of questions; shares as numbers."""
    table = output.rpartition("\n\n")[2].splitlines()
    assert table[0].split("  ")[0].strip() == "split"
    rows = [line.split() for line in table[1:]]
    return {
        (split, kind): (int(n), int(seen), *(float(share.rstrip("%")) / 100 for share in shares))
        for split, kind, n, seen, *shares in rows
    }


def check_table(output):
    """Chance: the mean over 51 questions of two choices and 52 of three."""
    table = read_table(output)
    chance = (51 / 2 + 52 / 3) / 103
    n, num_pictures, found_chance, text_only, with_pictures = table["test", "image"]
    assert (n, num_pictures) == (103, 102)
    assert found_chance == pytest.approx(chance, abs=0.001)
    assert text_only < chance + 0.15
    assert with_pictures > 0.9
    for split, num_text in (("train", 63), ("test", 17)):
        assert table[split, "text"] == (num_text, 0, 0.5, 1, 1)


def test_it_learns_with_the_reading_side_alone(tmp_path, make_root):
    """Catches features of another question, a mask that hides them, and an import of our models."""
    root = make_root(tmp_path)
    code = (
        f"import runpy, sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
        f"sys.argv[0] = {str(EXAMPLE)!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        [*command, "--features", str(root / "tiny"), "--epochs", "15"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check_table(done.stdout)


@pytest.mark.slow
def test_it_learns_from_arrow_shards(tmp_path, make_root, example, capsys):
    root = make_root(tmp_path, "arrow")
    example.main(["--features", str(root / "tiny"), "--epochs", "15"])
    check_table(capsys.readouterr().out)


def test_text_only_needs_no_features(tmp_path, make_root, example, capsys):
    root = make_root(tmp_path)
    (root / "tiny" / "manifest.json").unlink()
    example.main(["--artifacts", str(root), "--text-only", "--epochs", "1"])
    table = read_table(capsys.readouterr().out)
    assert [len(row) for row in table.values()] == [4] * 4
    assert table["test", "image"][:2] == (103, 0)


def test_errors_are_explained_without_a_traceback(tmp_path, make_root, example, capsys):
    with pytest.raises(SystemExit, match=r"error: .*does not exist"):
        example.main(["--features", str(tmp_path / "tiny")])
    root = make_root(tmp_path)
    with pytest.raises(SystemExit, match="error: no split 'exam'"):
        example.main(["--features", str(root / "tiny"), "--split", "exam"])
    with pytest.raises(SystemExit, match="2"):
        example.main(["--text-only"])
    assert "--artifacts with --text-only" in capsys.readouterr().err


def test_absent_choices_and_patches_change_nothing(example):
    """Catches padding that is scored or seen: a question alone and in a wide batch."""
    import torch

    torch.manual_seed(0)
    model = example.AttentionVQA(num_words=9, feature_dim=6)
    words_BT, choices_BKT = torch.tensor([[1, 2]]), torch.tensor([[[3], [4]]])
    features_BPD, valid = torch.randn(1, 3, 6), torch.ones(1, 3, dtype=torch.bool)
    alone = model(words_BT, choices_BKT, valid[:, :2], features_BPD, valid)
    wide = model(
        torch.tensor([[1, 2, 0]]),
        torch.tensor([[[3, 0], [4, 0], [0, 0]]]),
        torch.tensor([[True, True, False]]),
        torch.cat([features_BPD, torch.full((1, 2, 6), 100.0)], 1),
        torch.tensor([[True, True, True, False, False]]),
    )
    torch.testing.assert_close(wide[:, :2], alone)
    assert wide[0, 2] == -torch.inf
