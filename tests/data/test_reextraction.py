"""Re-extraction finds what checksums can't: rows, pictures, pixels and models that are others."""

import json
import random
from collections import Counter
from dataclasses import replace

import h5py
import numpy as np
import polars as pl
import pytest
import torch
from fake_encoder import FakeEncoder, colour_of, make_data, picture_path, save_picture
from feature_sets import make_feature_set
from local_storage_servers import serve_folder
from PIL import Image
from transformers import ViTConfig, ViTModel

from mmcot_data.cli import main
from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import DataError, EncoderError, ShardError, SpecMismatchError
from mmcot_data.extraction import ExtractionConfig, extract_features
from mmcot_data.extraction.drawn_rows import draw_rows
from mmcot_data.extraction.reextraction import reextract_features
from mmcot_data.extraction.row_comparison import compare_rows
from mmcot_data.extraction.spec_encoder import (
    NotReextractableError,
    find_config,
    load_spec_encoder,
)
from mmcot_data.shards.folder import finish_folder
from mmcot_data.shards.manifest import read_commit, read_manifest, write_commit
from mmcot_data.shards.store import open_store
from mmcot_data.shards.verification import verify_features
from mmcot_data.shards.writer import write_shard

ALL = 1000


def extract(data, out, encoder=None, name="fake", **changes):
    settings = {"shard_size": 5, "batch_size": 3} | changes
    encoder_settings = {
        key: settings.pop(key) for key in EncoderConfig.__slots__ if key in settings
    }
    config = ExtractionConfig(
        data=data, out=out, encoder=EncoderConfig(name=name, **encoder_settings), **settings
    )
    if name == "fake":
        encoder = encoder or FakeEncoder()
    return extract_features(config, encoder=encoder).folder


def rewrite(folder, change=lambda _, features_NPD: features_NPD, made_by=None, **spec_changes):
    """Other features or another spec in an HDF5 set, with checksums that are all right."""
    manifest = read_manifest(folder)
    spec = replace(manifest.spec, **spec_changes)
    commits = []
    for number, record in enumerate(manifest.shards):
        path = folder / record.file
        with h5py.File(path) as shard:
            features_NPD, digests = shard["features"][:], shard["image_sha256"][:]
        digests = np.frombuffer(digests.tobytes(), np.uint8).reshape(len(features_NPD), 32)
        commit = read_commit(folder / f"{record.file}.json")
        shard = write_shard(path, change(number, features_NPD), digests, spec)
        commits.append(
            replace(commit, shard=shard, spec=spec, made_by=made_by or dict(commit.made_by))
        )
        write_commit(folder, commits[-1])
    finish_folder(
        folder,
        spec=spec,
        plan=manifest.plan,
        request_sha256=manifest.request_sha256,
        commits=commits,
        index=pl.read_parquet(folder / "index.parquet"),
    )
    assert verify_features(folder).problems == ()


def change_index(folder, **columns):
    manifest = read_manifest(folder)
    finish_folder(
        folder,
        spec=manifest.spec,
        plan=manifest.plan,
        request_sha256="changed",
        commits=[read_commit(folder / f"{record.file}.json") for record in manifest.shards],
        index=pl.read_parquet(folder / "index.parquet").with_columns(**columns),
    )


def copy_row(target, source):
    def change(number, features_NPD):
        if number == 0:
            features_NPD[target] = features_NPD[source]
        return features_NPD

    return change


@pytest.fixture
def data(tmp_path):
    """Twelve questions; the last one has the picture of question 1."""
    (tmp_path / "data").mkdir()
    folder = make_data(tmp_path / "data")
    picture_path(folder, 11).write_bytes(picture_path(folder, 1).read_bytes())
    return folder


@pytest.fixture
def features(data, tmp_path):
    """Eleven rows in three shards."""
    return extract(data, tmp_path / "shards")


def reextract(folder, data, num_rows=ALL, encoder=None, **options):
    return reextract_features(folder, data, num_rows, encoder=encoder or FakeEncoder(), **options)


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_untouched_set_gives_its_own_bits(data, tmp_path, container, dtype):
    """Catches a row that is compared with another shard's or batch's."""
    folder = extract(data, tmp_path / "shards", format=container, dtype=dtype)
    progress = []
    report = reextract(folder, data, on_progress=lambda *call: progress.append(call))
    assert (report.problems, report.notes) == ((), ())
    assert (report.num_available, report.num_drawn, report.num_compared) == (11, 11, 11)
    assert (report.num_equal, report.max_error) == (11, 0.0)
    assert progress[0] == (0, 11)
    assert progress[-1] == (11, 11)
    assert progress == sorted(progress)
    expected = 1e-4 + {"float16": 2.0**-10, "float32": 2.0**-23}[dtype]
    assert report.tolerance == pytest.approx(expected)


def test_only_pictures_of_equal_input_size_are_encoded_together(features, data):
    encoder = FakeEncoder()
    reextract(features, data, encoder=encoder)
    shapes = {(3, 16, 16), (3, 16, 24), (3, 32, 16)}
    assert {shape[1:] for shape in encoder.batches} == shapes
    assert sum(shape[0] for shape in encoder.batches) == 11


def test_another_batch_composition_passes(data, tmp_path):
    """Rounding that depends on the batch is no problem, and is reported."""

    class Rounding(FakeEncoder):
        def encode(self, pixels_BCHW):
            return super().encode(pixels_BCHW) * (1 + 2e-5 * len(pixels_BCHW))

    encoder = Rounding()
    folder = extract(data, tmp_path / "shards", encoder, dtype="float32", batch_size=1)
    report = reextract(folder, data, encoder=encoder)
    assert report.problems == ()
    assert report.num_equal < 11
    # Batches of four against batches of one.
    assert report.max_error == pytest.approx(6e-5, rel=0.02)


def test_tiny_passes_whatever_was_batched(data, tmp_path):
    folder = extract(data, tmp_path / "shards", name="tiny", batch_size=5)
    report = reextract_features(folder, data, ALL)
    assert (report.problems, report.notes, report.num_compared) == ((), (), 11)
    assert report.max_error <= report.tolerance < 2e-3


def test_a_row_of_another_picture_is_found(features, data):
    """Only re-extraction can: the checksums, the index and the commit records are all right."""
    rewrite(features, copy_row(1, 4))
    report = reextract(features, data)
    (problem,) = report.problems
    assert (problem.file, problem.rows) == ("00000-of-00003.h5", (1,))
    assert problem.question_ids == ("1", "11")
    assert "1 of 5 rows drawn from it differ from what their pictures give" in problem.message
    assert "these rows are of other pictures" in problem.message
    assert "question 1 (question): relative error" in problem.message
    found, stored = (np.array(colour_of(number), np.float64) for number in (1, 4))
    expected = np.linalg.norm(found - stored) / np.linalg.norm(stored)
    assert report.max_error == pytest.approx(expected, rel=2e-3)
    assert (report.max_error_question, report.num_equal) == ("1", 10)


def test_a_row_that_was_not_drawn_is_not_looked_at(features, data):
    rewrite(features, copy_row(1, 4))
    reports = [reextract(features, data, 3, seed=seed) for seed in range(12)]
    assert {len(report.problems) for report in reports} == {0, 1}
    assert all(report.num_drawn == 3 for report in reports)


def test_pictures_that_are_gone_or_changed_are_told_apart(features, data):
    picture_path(data, 0).unlink()
    save_picture(picture_path(data, 3), 700)
    picture_path(data, 6).write_bytes(b"")
    report = reextract(features, data)
    first, second = report.problems
    assert (first.file, first.rows, first.question_ids) == ("00000-of-00003.h5", (0, 3), ("0", "3"))
    assert "the data set does not have the pictures" in first.message
    assert "question 0 (question): missing: " in first.message
    assert f"question 3 (question): {picture_path(data, 3)} has changed" in first.message
    assert second.question_ids == ("6",)
    assert "question 6 (question): empty: " in second.message
    assert (report.num_drawn, report.num_compared, report.num_equal) == (11, 8, 8)


def test_without_any_picture_nothing_is_compared(features, data):
    for path in data.rglob("*.png"):
        path.unlink()
    report = reextract(features, data)
    assert (report.num_compared, report.max_error, report.tolerance) == (0, None, None)
    assert [len(problem.rows) for problem in report.problems] == [5, 5, 1]
    assert report.problems[0].message.count(": missing: ") == 5
    assert " more" not in report.problems[0].message


def test_other_pixels_are_the_decoders_difference(features, data):
    """The same file decodes to other pixels: catches blaming the model for a codec's change."""
    pixels = pl.when(question_id="2").then(pl.lit("ab" * 32)).otherwise("pixel_sha256")
    change_index(features, pixel_sha256=pixels)
    report = reextract(features, data)
    (problem,) = report.problems
    assert (problem.rows, problem.question_ids) == ((2,), ("2",))
    assert "the decoder differs, not the model" in problem.message
    assert "relative error 0.00e+00" in problem.message
    assert report.num_compared == 11


def test_unknown_pixels_are_not_compared(features, data):
    change_index(features, pixel_sha256=pl.lit(None, pl.String))
    assert reextract(features, data).problems == ()


def test_a_picture_that_does_not_decode_any_more_is_the_decoders_difference(
    features, data, monkeypatch
):
    """The file is the same: its sha256 is compared before."""
    path = picture_path(data, 5)
    sha256 = pl.read_parquet(features / "index.parquet").row(5, named=True)["image_sha256"]
    path.write_bytes(b"no picture")
    monkeypatch.setattr(
        "mmcot_data.extraction.scan.bytes_sha256", lambda content: sha256 if content else ""
    )
    report = reextract(features, data)
    problem = next(p for p in report.problems if "decoder" in p.message)
    assert problem.question_ids == ("5",)
    assert "is not a picture" in problem.message


class Described(FakeEncoder):
    def __init__(self, **changes):
        super().__init__()
        self.changes = changes

    def describe(self):
        return super().describe() | self.changes


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weights_sha256": "11" * 32}, f"weights_sha256: expected '{'00' * 32}', found"),
        ({"layer": "first"}, "layer: expected 'mean', found 'first'"),
        (
            {"preprocessing": [{"step": "resize", "size": 32, "mean": (0.0, 0.0)}]},
            "preprocessing.0.size: expected 16, found 32",
        ),
        ({"precision": "bf16"}, "precision: expected 'fp32', found 'bf16'"),
        ({"num_patches": 9}, "num_patches: expected 4, found 9"),
        ({"grid": (2, 2)}, "grid: expected None, found [2, 2]"),
    ],
)
def test_an_encoder_that_makes_other_features_is_refused(features, data, changes, line):
    """Catches a comparison that blames every row, where one line says what is another one."""
    encoder = Described(**changes)
    with pytest.raises(SpecMismatchError) as error:
        reextract(features, data, encoder=encoder)
    text, *lines = str(error.value).splitlines()
    assert len(lines) == 1
    assert lines[0].strip().startswith(line)
    assert ("--model" in text) == ("weights_sha256" in changes)
    assert encoder.batches == []


def test_what_only_rounds_differently_is_noted(features, data):
    made_by = {"device": "cuda:1", "device_name": "Some GPU"}
    rewrite(features, made_by=made_by, backend="compile", versions={"fake": "0.9", "timm": "1.0"})
    report = reextract(features, data)
    assert report.problems == ()
    assert [note.message for note in report.notes] == [
        "the backend compile made them, torch computes now",
        "fake 0.9 made them, 1 computes now",
        "timm 1.0 made them, and is not used now",
        "Some GPU (cuda) made them, cpu computes now",
    ]


def test_a_lower_precision_allows_for_its_own_rounding_only(data, tmp_path):
    """bf16 on this device against itself passes, and a row of another picture doesn't.

    Catches a fixed tolerance that is too tight for one encoder, or too wide for another.
    """
    generator = np.random.default_rng(0)
    for number in range(12):
        pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(picture_path(data, number))
    folder = extract(data, tmp_path / "shards", name="tiny", precision="bf16")
    report = reextract_features(folder, data, ALL)
    assert report.problems == ()
    exact = load_spec_encoder(replace(read_manifest(folder).spec, precision="fp32"))
    coarse = exact.at_precision("bf16")
    pixels = torch.stack(
        [exact.prepare(Image.open(picture_path(data, number))) for number in range(12)]
    )
    error = torch.dist(exact.encode(pixels), coarse.encode(pixels)) / exact.encode(pixels).norm()
    assert report.tolerance == pytest.approx(4 * float(error) + 1e-4 + 2**-10, rel=0.2)
    rewrite(folder, copy_row(2, 3))
    assert [p.question_ids for p in reextract_features(folder, data, ALL).problems] == [("2",)]


def test_tf32_is_compared_with_fp32_where_there_is_no_tf32(data, tmp_path):
    """A set that a GPU made can be verified without one."""
    folder = extract(data, tmp_path / "shards", name="tiny")

    def round_as_tf32(_, features_NPD):
        return (features_NPD.astype(np.float32) * (1 + 2.0**-11)).astype(np.float16)

    rewrite(folder, round_as_tf32, precision="tf32", precision_error=5e-4)
    report = reextract_features(folder, data, ALL, device="cpu")
    assert report.problems == ()
    assert 1e-3 < report.tolerance < 4e-3
    (note,) = report.notes
    assert note.message == "the precision tf32 made them, fp32 computes now"


def test_errors_are_relative_to_the_norm_of_the_stored_row():
    """Closed forms, and rows of zeros, for which there is no relative error."""
    stored = np.array([[[3, 4]], [[3, 4]], [[0, 0]], [[0, 0]], [[0, 1]]], np.float16)
    found = np.array([[[3, 4]], [[3, 4.5]], [[0, 0]], [[0, 2]], [[-0.0, 1]]], np.float16)
    errors, is_equal = compare_rows(found, stored)
    np.testing.assert_allclose(errors, [0, 0.1, 0, 1, 0])
    assert is_equal.tolist() == [True, False, True, False, False]


def test_the_draw_is_spread_over_the_shards(features):
    """Catches a draw that leaves out shards, draws a row twice, or can't be repeated."""
    index = open_store(features).read_index()
    drawn, available = draw_rows(index, 6, seed=1)
    assert available == 11
    places = [(row.number, row.row) for row in drawn]
    assert places == sorted(set(places))
    assert Counter(number for number, _ in places) in (
        Counter({0: 3, 1: 2, 2: 1}),
        Counter({0: 2, 1: 3, 2: 1}),
    )
    assert draw_rows(index, 6, seed=1)[0] == drawn
    assert any(draw_rows(index, 6, seed=seed)[0] != drawn for seed in range(2, 5))
    everything, _ = draw_rows(index, 11, seed=3)
    assert everything == draw_rows(index, ALL, seed=4)[0]
    rows = {row.question_ids: row.file for row in everything}
    assert rows["1", "11"] == "images/train/1/image.png"
    counts = Counter(draw_rows(index, 3, seed)[0][0].row for seed in range(300))
    assert min(counts[row] for row in range(5)) > 30  # of an expected 60


def test_rows_without_features_are_not_drawn(data, tmp_path):
    picture_path(data, 4).unlink()
    folder = extract(data, tmp_path / "shards", max_failures="1")
    report = reextract(folder, data)
    assert (report.num_available, report.problems) == (10, ())


def test_imported_features_are_refused_with_a_reason(tmp_path, data):
    make_feature_set(tmp_path / "set", weights_sha256=None, precision="unknown", backend="unknown")
    with pytest.raises(NotReextractableError, match=r"that were imported can't be extracted"):
        reextract_features(tmp_path / "set", data, 3)


def test_an_index_that_does_not_know_the_pictures_is_refused(features, data):
    change_index(features, file=pl.lit(None, pl.String))
    with pytest.raises(NotReextractableError, match=r"not say which picture the .* question 0"):
        reextract(features, data)


def test_data_that_does_not_exist_is_refused(features, tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist; expected the data set"):
        reextract(features, tmp_path / "nowhere")


def test_pictures_in_a_table_are_found_again(data, tmp_path):
    """By the place in the table that the index names; another data set has no such table."""
    numbers = [3, 0, 7]
    content = [picture_path(data, number).read_bytes() for number in numbers]
    table = tmp_path / "pictures.parquet"
    pl.DataFrame({"id": list(map(str, numbers)), "image": content}).write_parquet(table)
    folder = extract(table, tmp_path / "shards")
    report = reextract(folder, table)
    assert (report.problems, report.num_equal) == ((), 3)
    with pytest.raises(DataError, match=r"data has no pictures.parquet#0, the picture of quest"):
        reextract(folder, data)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small ViTs of one architecture with other weights."""
    root = tmp_path_factory.mktemp("models")
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=32,
    )
    for name, seed in (("mine", 1), ("other", 2)):
        torch.manual_seed(seed)
        ViTModel(config, add_pooling_layer=False).save_pretrained(root / name)
    return root


@pytest.mark.parametrize("preprocessing", ["reference", "native"])
@pytest.mark.parametrize(("resize", "alpha"), [("pil", "drop"), ("torchvision", "white")])
def test_the_encoder_is_found_again_from_its_spec(
    models, data, tmp_path, monkeypatch, preprocessing, resize, alpha
):
    """Catches options that are lost, which would be told as other preprocessing or other rows."""
    options = {"preprocessing": preprocessing, "resize": resize, "alpha": alpha}
    picture = Image.new("RGBA", (40, 64), (200, 30, 90, 120))
    picture.save(picture_path(data, 0))
    model = str(models / "mine")
    folder = extract(data, tmp_path / "shards", name="vit", model=model, **options)
    loads = []
    from mmcot_data.encoders import load_encoder

    def load(config):
        loads.append(config)
        return load_encoder(config)

    monkeypatch.setattr("mmcot_data.extraction.spec_encoder.load_encoder", load)
    report = reextract_features(folder, data, ALL, model=model)
    assert (report.problems, report.notes, report.num_compared) == ((), (), 11)
    assert report.num_equal >= 1
    assert len(loads) == 1  # weights are not loaded for the wrong preprocessing first


def test_the_second_kind_of_preprocessing_is_tried_where_the_first_is_another(
    models, data, tmp_path, monkeypatch
):
    folder = extract(data, tmp_path / "shards", name="vit", model=str(models / "mine"))
    monkeypatch.setattr(
        "mmcot_data.extraction.spec_encoder._likely_first", lambda _: ("native", "reference")
    )
    assert reextract_features(folder, data, 2, model=str(models / "mine")).problems == ()


def test_a_model_of_a_folder_has_to_be_named(models, data, tmp_path):
    folder = extract(data, tmp_path / "shards", name="vit", model=str(models / "mine"))
    with pytest.raises(
        ShardError, match=r"local folder named 'mine'; say where it is with --model"
    ):
        reextract_features(folder, data, 2)
    with pytest.raises(SpecMismatchError, match=r"with the model other.*\n  weights_sha256: exp"):
        reextract_features(folder, data, 2, model=str(models / "other"))
    with pytest.raises(EncoderError, match="does not exist"):
        reextract_features(folder, data, 2, model=str(models / "nowhere"))


def test_random_weights_are_drawn_again(data, tmp_path):
    folder = extract(data, tmp_path / "shards", name="tiny", random_weights=7)
    assert read_manifest(folder).spec.random_weights == 7
    assert reextract_features(folder, data, ALL).problems == ()
    rewrite(folder, random_weights=8)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        reextract_features(folder, data, ALL)


@pytest.mark.parametrize(
    ("changes", "model", "expected"),
    [
        ({"revision": "c0ffee"}, None, {"model": None, "revision": "c0ffee"}),
        ({"revision": "c0ffee"}, "here", {"model": "here", "revision": None}),
        (
            {"model_id": "org/finetuned", "revision": "c0ffee"},
            None,
            {"model": "org/finetuned", "revision": "c0ffee"},
        ),
        ({"random_weights": 3}, None, {"model": None, "random_weights": 3}),
        (
            {"encoder": "hf:org/name", "model_id": "org/name", "revision": "c0ffee"},
            None,
            {"name": "hf:org/name", "model": None, "revision": "c0ffee"},
        ),
        ({"precision": "bf16", "revision": "c0ffee"}, None, {"precision": "bf16"}),
        ({"backend": "openvino", "revision": "c0ffee"}, None, {"backend": "torch"}),
    ],
)
def test_the_configuration_follows_from_the_spec(features, changes, model, expected):
    spec = replace(
        read_manifest(features).spec,
        **{"encoder": "detr", "model_id": "facebook/detr-resnet-101-dc5"} | changes,
    )
    config = find_config(spec, model=model, device="cpu")
    found = {name: getattr(config, name) for name in expected}
    assert found == expected


@pytest.fixture
def tiny(data, tmp_path):
    return extract(data, tmp_path / "shards", name="tiny")


def test_the_command_extracts_rows_anew(tiny, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    report = tmp_path / "report.json"
    command = ["verify", str(tiny), "--reextract", "4", "--data", str(data), "--json", str(report)]
    assert main(command) == 0
    output = capsys.readouterr()
    first, second = output.out.splitlines()
    assert first.startswith(f"{tiny}: no problem; read 3 shards, 11 rows")
    assert second.startswith("  extracted anew 4 rows of 11 in ")
    assert "equal to the bit, largest relative error" in second
    assert "4/4" in output.err
    (found,) = json.loads(report.read_text())
    anew = found["reextraction"]
    assert f"(--seed {anew['seed']}): no problem" in second
    assert (anew["num_drawn"], anew["num_compared"]) == (4, 4)
    rewrite(tiny, copy_row(1, 4))
    assert main([*command, "--seed", "3", "--reextract", "100"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "(--seed 3): 1 problem" in lines[1]
    assert lines[2].startswith("  PROBLEM 00000-of-00003.h5: 1 of 5 rows drawn from it differ")
    assert lines[-2:] == ["    rows: 1", "    questions: 1, 11"]
    (found,) = json.loads(report.read_text())
    assert [problem["question_ids"] for problem in found["problems"]] == [["1", "11"]]
    assert found["reextraction"]["seed"] == 3


def test_the_command_takes_several_sets_with_one_data_set(tiny, data, tmp_path, capsys):
    """Catches an imported set that hides the ones after it, or fails the whole root."""
    make_feature_set(tmp_path / "shards" / "imported", weights_sha256=None)
    report = tmp_path / "report.json"
    root = str(tmp_path / "shards")
    command = ["verify", root, "--reextract", "2", "--data", str(data), "--json", str(report)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "note manifest.json: no rows were extracted anew: features of fake that were" in out
    imported, made = json.loads(report.read_text())
    assert (imported["problems"], imported["reextraction"]) == ([], None)
    assert [note["file"] for note in imported["notes"]] == ["manifest.json"]
    assert (made["problems"], made["reextraction"]["num_compared"]) == ([], 2)


def test_the_command_notes_pictures_that_an_import_did_not_note(tiny, data, capsys):
    change_index(tiny, file=pl.lit(None, pl.String))
    assert main(["verify", str(tiny), "--reextract", "2", "--data", str(data)]) == 0
    assert "note manifest.json: no rows were extracted anew: index" in capsys.readouterr().out


def test_the_command_calls_a_model_that_is_not_there_a_problem(models, data, tmp_path, capsys):
    """Features that could be extracted anew, were it not for the command or the machine."""
    root = tmp_path / "shards"
    extract(data, root, name="vit", model=str(models / "mine"))
    make_feature_set(root / "imported", weights_sha256=None)
    command = ["verify", str(root), "--reextract", "2", "--data", str(data)]
    for options in ([], ["--model", str(models / "nowhere")]):
        assert main([*command, *options]) == 1
        out = capsys.readouterr().out
        assert out.count("PROBLEM manifest.json: no rows were extracted anew") == 1
        assert out.count("note manifest.json: no rows were extracted anew") == 1


def test_the_command_does_not_extract_a_damaged_set_anew(tiny, data, capsys):
    (tiny / "00001-of-00003.h5").unlink()
    assert main(["verify", str(tiny), "--reextract", "2", "--data", str(data)]) == 1
    assert "no rows were extracted anew: repair the problems first" in capsys.readouterr().out


def test_a_set_at_a_url_is_extracted_anew(tiny, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MMCOT_CACHE", str(tmp_path / "cache"))
    with serve_folder(tiny.parent) as server:
        url = f"{server.url}/tiny"
        assert main(["verify", url, "--reextract", "3", "--data", str(data)]) == 0
    assert "extracted anew 3 rows of 11" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reextract", "3"], "--reextract needs --data DATA"),
        (["--reextract", "0", "--data", "."], "--reextract is 0, expected at least 1"),
        (["--reextract", "3", "--data", "no/where"], "--data no/where does not exist"),
        (["--data", ".", "--seed", "1"], "--data, --seed: only with --reextract N"),
        (["--device", "cpu"], "--device: only with --reextract N"),
    ],
)
def test_bad_usage_exits_with_2(features, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["verify", str(features), *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    text = capsys.readouterr().out
    assert "mmcot-data verify shards/detr --reextract 32 --data data/scienceqa" in text


def test_without_a_seed_the_draws_differ(tiny, data, tmp_path):
    report = tmp_path / "report.json"
    seeds = set()
    state = random.getstate()
    for _ in range(3):
        random.seed(0)
        command = ["verify", str(tiny), "--reextract", "1", "--data", str(data)]
        assert main([*command, "--json", str(report)]) == 0
        seeds.add(json.loads(report.read_text())[0]["reextraction"]["seed"])
    random.setstate(state)
    assert len(seeds) > 1
