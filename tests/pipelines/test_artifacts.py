"""Text, bars and tables of Prefect's pages, without a server."""

import io
import threading
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from mmcot_data import extraction
from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.extraction import ExtractionConfig
from mmcot_data.shards.store import open_store
from pipelines import artifacts, sample_pictures, work_progress
from pipelines.extraction_progress import ExtractionProgress
from pipelines.page import artifact_key, summary_table
from pipelines.quantities import bytes_text, count_text, duration_text, rate_text
from pipelines.sample_pictures import choose_pictures, draw_sheet


class AtOnce:
    """Stands for the thread that talks to the server: what a bar shows is known at once."""

    def __init__(self, *_):
        pass

    def submit(self, function, *arguments):
        function(*arguments)

    def shutdown(self):
        pass


@pytest.fixture
def bar(monkeypatch):
    """What a progress bar shows, by a clock that is set by hand and a server that can be ended."""
    monkeypatch.setattr(work_progress, "ThreadPoolExecutor", AtOnce)
    state = SimpleNamespace(now=100.0, shown=[], is_up=True, warnings=[])

    def update(_artifact, percent, description):
        if not state.is_up:
            raise httpx.ConnectError("refused")
        state.shown.append((percent, description))

    def create(progress, key, description):
        state.shown.append((progress, description))
        return key

    logger = SimpleNamespace(warning=lambda text, *rest: state.warnings.append(text % rest))
    monkeypatch.setattr(work_progress.time, "monotonic", lambda: state.now)
    monkeypatch.setattr(work_progress, "create_progress_artifact", create)
    monkeypatch.setattr(work_progress, "update_progress_artifact", update)
    monkeypatch.setattr(work_progress, "get_run_logger", lambda: logger)
    return state


def test_bar_says_pictures_rate_and_time_left(bar):
    """Would catch shards counted twice, and a rate that counts what was there already."""
    progress = ExtractionProgress("detr", 1000, 3000)
    for second in range(1, 11):
        bar.now += 1
        progress.advance("a", 10 * second)
        progress.advance("b", 10 * second)
    assert bar.shown[0] == (pytest.approx(100 / 3), "1,000 of 3,000 pictures")
    assert len(bar.shown) == 1 + 5, "an update costs a request: one every two seconds"
    percent, text = bar.shown[-1]
    assert percent == pytest.approx(100 * 1190 / 3000)
    assert text == "1,190 of 3,000 pictures; 19.0 pictures/s, 95 s left"
    progress.advance("a", 0)  # it failed and is made again
    bar.now += 10
    progress.close()
    assert bar.shown[-1][1] == ("1,100 of 3,000 pictures; 100 of them now in 20 s (5.0 pictures/s)")


def test_rate_is_that_of_the_last_minute(bar):
    """Would catch a forecast that a slow beginning spoils for hours."""
    progress = ExtractionProgress("detr", 0, 10_000)
    for second in range(1, 201):
        bar.now += 1
        progress.advance("a", second if second <= 100 else 100 + 50 * (second - 100))
    assert "; 50.0 pictures/s, 98 s left" in bar.shown[-1][1]


def test_work_goes_on_while_the_server_is_away(bar):
    """Would catch hours of work that end for a bar; and a log full of the same line."""
    progress = ExtractionProgress("detr", 0, 100)
    bar.is_up = False
    for done in range(10, 60, 10):
        bar.now += 3
        progress.advance("a", done)
    assert len(bar.warnings) == 1
    assert "stands still" in bar.warnings[0]
    bar.is_up = True
    bar.now += 3
    progress.advance("a", 60)
    assert bar.shown[-1][0] == 60


def test_work_does_not_wait_for_a_slow_server(monkeypatch):
    """Would catch hours of GPU time spent waiting for a bar, and a last state that is not shown."""
    may_answer, shown = threading.Event(), []

    def update(_artifact, percent, description):
        assert may_answer.wait(10)
        shown.append(percent)

    monkeypatch.setattr(work_progress, "_SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(work_progress, "create_progress_artifact", lambda **_: "bar")
    monkeypatch.setattr(work_progress, "update_progress_artifact", update)
    monkeypatch.setattr(work_progress, "get_run_logger", lambda: None)
    progress = ExtractionProgress("detr", 0, 100)
    for done in range(1, 101):
        progress.advance("a", done)  # returns while the server has not answered once
    assert shown == []
    may_answer.set()
    progress.close()
    assert shown[-1] == 100
    assert len(shown) <= 3, "what came while it was busy is one update"


def test_bar_of_nothing_is_full(bar):
    ExtractionProgress("detr", 0, 0).close()
    assert bar.shown[-1] == (100, "0 of 0 pictures; none of them now")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count_text(21208), "21,208"),
        (bytes_text(999), "999 bytes"),
        (bytes_text(999_960), "1.0 MB"),
        (bytes_text(1_086_000_000), "1.1 GB"),
        (bytes_text(3.2e18), "3,200.0 PB"),
        (duration_text(4.24), "4.2 s"),
        (duration_text(99.4), "99 s"),
        (duration_text(99.6), "2 min"),
        (duration_text(3599), "1 h 0 min"),
        (duration_text(24 * 3600), "1 day 0 h"),
        (duration_text(54 * 3600), "2 days 6 h"),
        (rate_text(1234.4), "1,234"),
        (rate_text(4.25), "4.2"),
        (rate_text(0.0251), "0.025"),
    ],
)
def test_numbers_are_written_for_people(shown, expected):
    """Would catch 1000.0 kB, 60 min and a slow rate that is shown as 0.0."""
    assert shown == expected


def test_keys_are_what_prefect_takes():
    """Prefect refuses capitals, underscores, dots and dashes at the ends."""
    assert artifact_key("features", "hf-Org-name_v1.5", "x") == "features-hf-org-name-v1-5-x"
    assert artifact_key("features", "-detr-", "summary") == "features-detr-summary"


def test_text_cannot_break_a_table():
    """Would catch a path or an error with a bar or a line break in it."""
    table = summary_table({"data": "a|b\nc", "none": None})
    assert table.splitlines()[2:] == ["| data | a\\|b<br>c |"]


@pytest.fixture(scope="module")
def made(sample, tmp_path_factory):
    """A feature set of small shards, and its plan."""
    config = ExtractionConfig(
        data=sample,
        out=tmp_path_factory.mktemp("out"),
        encoder=EncoderConfig(name="tiny"),
        shard_size=10,
    )
    extraction.extract_features(config)
    source = extraction.scan_source(extraction.open_pictures(config))
    return extraction.prepare_extraction(config, load_encoder(config.encoder), source)[0]


@pytest.fixture
def published(monkeypatch):
    """What would be sent to the server."""
    sent = {}
    monkeypatch.setattr(
        artifacts, "create_table_artifact", lambda table, key, description: sent.update(
            {key: (table, description)}
        )
    )  # fmt: skip
    monkeypatch.setattr(
        artifacts, "create_markdown_artifact", lambda markdown, key, description: sent.update(
            {key: (markdown, description)}
        )
    )  # fmt: skip
    return sent


def test_of_many_shards_failed_and_new_ones_are_shown(made, published, monkeypatch):
    """Would catch failures that stand on row 90,000, and 100,000 records read for the table."""
    read = []
    find = artifacts.find_commit
    monkeypatch.setattr(artifacts, "find_commit", lambda task: read.append(task) or find(task))
    monkeypatch.setattr(artifacts, "_MAX_SHARDS_SHOWN", 4)
    total = len(made.shards)
    assert total > 4
    shard = SimpleNamespace(pictures_per_second=12.34)
    last = total - 1
    artifacts.publish_shards(made, {1: shard, 2: shard}, {last: OSError("the disk was busy")})
    table, description = published["features-tiny-shards"]
    assert len(read) == 4
    assert [row["shard"][:5] for row in table] == [f"{n:05d}" for n in (last, 1, 2, 0)]
    assert table[0]["status"] == "failed: OSError: the disk was busy"
    assert [row["status"] for row in table[1:]] == ["made by this run"] * 2 + ["was there already"]
    assert [row["pictures/s"] for row in table] == [None, "12.3", "12.3", None]
    assert f"The {total} shards" in description
    assert "1 failed" in description
    assert f"{total - 3} there already" in description
    assert "Here are 4 of them" in description


def test_samples_are_drawn_with_their_pictures(made, sample):
    """Would catch maps beside pictures that they are not of, and the same picture six times."""
    store = open_store(str(made.folder))
    pictures = choose_pictures(store, 6)
    assert len({picture.image_sha256 for picture in pictures}) == 6
    index = store.read_index().filter(status="ok").unique("image_sha256", maintain_order=True)
    assert pictures[0].image_sha256 == index["image_sha256"][0]
    assert pictures[-1].image_sha256 == index["image_sha256"][-1]
    commit = artifacts.find_commit(made.shard_task(0))
    assert commit.image_sha256[0] == pictures[0].image_sha256
    np.testing.assert_array_equal(pictures[0].features, store.mapped.rows[0])
    kind, sheet = draw_sheet(store, pictures, sample)
    assert kind == "png"
    _, maps = draw_sheet(store, pictures, None)
    assert len(maps) < len(sheet) < 1_000_000
    assert Image.open(io.BytesIO(sheet)).width > Image.open(io.BytesIO(maps)).width


def test_a_large_sheet_is_compressed(made, sample, monkeypatch):
    """Would catch megabytes of photos in the database of the server."""
    store = open_store(str(made.folder))
    pictures = choose_pictures(store, 2)
    monkeypatch.setattr(sample_pictures, "_MAX_NBYTES", 1000)
    kind, sheet = draw_sheet(store, pictures, sample)
    assert (kind, Image.open(io.BytesIO(sheet)).format) == ("jpeg", "JPEG")


def test_pictures_that_are_gone_do_not_end_the_run(made, published, tmp_path, monkeypatch):
    """Would catch a run that fails after hours because its data set was moved meanwhile."""
    warnings = []
    logger = SimpleNamespace(warning=lambda text, *rest: warnings.append(text % rest))
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: logger)
    artifacts.publish_samples(made.folder, tmp_path)
    markdown, _ = published["features-tiny-samples"]
    assert "data:image/png;base64," in markdown
    assert "The pictures themselves can't be shown: " in markdown
    assert len(warnings) == 1
