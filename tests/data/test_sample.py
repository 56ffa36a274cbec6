"""The drawn sample: its layout, its determinism, and that only the picture tells the answer.

The pictures are read back from their pixels with code of its own, which knows colours by hue only.
"""

import hashlib
import json
from collections import Counter, defaultdict
from itertools import groupby, product

import numpy as np
import pytest
from PIL import Image

from mmcot_data.errors import DataError
from mmcot_data.sample import MIN_QUESTIONS, draw_sample
from mmcot_data.sample.charts import MAX_BAR
from mmcot_data.sample.compose import compose
from mmcot_data.sample.plan import Assignment, plan_sample
from mmcot_data.sample.skills import IMAGE_SKILLS

NUM_QUESTIONS = 200
RECORD_KEYS = [
    "question",
    "choices",
    "answer",
    "hint",
    "image",
    "task",
    "grade",
    "subject",
    "topic",
    "category",
    "skill",
    "lecture",
    "solution",
    "split",
]
HUES = {"red": 2, "yellow": 45, "green": 146, "blue": 213, "pink": 329}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "sample"
    draw_sample(out, num_questions=NUM_QUESTIONS, num_workers=1)
    return out


@pytest.fixture(scope="module")
def problems(sample):
    return json.loads((sample / "problems.json").read_text(encoding="utf-8"))


def of_skill(problems, name):
    label = IMAGE_SKILLS[name].labels.skill
    return {k: record for k, record in problems.items() if record["skill"] == label}


def folder_of(sample, problems, question_id):
    return sample / "images" / problems[question_id]["split"] / question_id


def load(path):
    with Image.open(path) as picture:
        picture.load()
    return picture


def load_picture(sample, problems, question_id):
    return load(folder_of(sample, problems, question_id) / "image.png")


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def colour_mask(image, name):
    """Where a picture has strong pixels of this hue."""
    hsv = np.asarray(image.convert("RGB").convert("HSV"), np.int16)
    hue, saturation, value = np.moveaxis(hsv, 2, 0)
    distance = np.abs((hue * 45 // 32 - HUES[name] + 180) % 360 - 180)
    return (distance < 14) & (saturation > 130) & (value > 120)


def blobs(mask):
    """Centres (x, y) of the connected areas of a mask, of every second row and column of it."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask[::2, ::2])}
    centres = []
    while left:
        area, front = [], [left.pop()]
        while front:
            y, x = front.pop()
            area.append((x, y))
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            front += near
        if len(area) > 5:
            centres.append(tuple(2 * np.mean(area, axis=0)))
    return centres


def runs(values):
    """(value, start, length) of equal neighbours."""
    at = 0
    for value, members in groupby(values):
        length = len(list(members))
        yield value, at, length
        at += length


# Layout


def test_problems_have_the_official_keys_in_order_and_contiguous_ids(problems):
    assert list(problems) == [str(number) for number in range(1, NUM_QUESTIONS + 1)]
    for record in problems.values():
        assert list(record) == RECORD_KEYS
        assert 0 <= record["answer"] < len(record["choices"])
        assert record["image"] in (None, "image.png")
        assert record["task"] in ("closed choice", "yes or no", "true-or false")
        assert record["grade"] in [f"grade{number}" for number in range(1, 13)]
        assert record["subject"] in ("natural science", "social science", "language science")
        assert record["solution"]
        assert 0 < len(record["lecture"].split()) <= 14


def test_every_bucket_of_the_evaluation_has_questions(problems):
    """An empty bucket would show as a missing number in every report on the sample."""
    records = problems.values()
    assert {record["subject"].split()[0] for record in records} == {"natural", "social", "language"}
    assert {int(record["grade"][5:]) > 6 for record in records} == {True, False}
    assert any(record["hint"] for record in records)
    assert any(record["image"] for record in records)
    assert any(not record["hint"] and not record["image"] for record in records)


def test_splits_follow_the_official_orders(sample, problems):
    """Sorting trainval or the mini splits would hide faults in code that must keep their order."""
    lists = json.loads((sample / "pid_splits.json").read_text())
    sizes = {name: len(ids) for name, ids in lists.items()}
    assert sizes["train"] + sizes["val"] + sizes["test"] == NUM_QUESTIONS
    assert sizes["train"] == pytest.approx(0.7 * NUM_QUESTIONS, abs=4)
    assert sizes["val"] == pytest.approx(0.1 * NUM_QUESTIONS, abs=4)
    for split in ("train", "val", "test"):
        assert lists[split] == sorted(lists[split], key=int)
        assert all(problems[question_id]["split"] == split for question_id in lists[split])
        mini = lists[f"mini{split}"]
        assert len(mini) == round(len(lists[split]) / 10)
        assert set(mini) < set(lists[split])
    assert lists["trainval"] == lists["train"] + lists["val"]
    assert lists["minitrain"] != sorted(lists["minitrain"], key=int)
    assert len(lists) == 7


def test_pictures_and_captions_exist_exactly_where_records_say(sample, problems):
    captions = json.loads((sample / "captions.json").read_text())["captions"]
    with_image = [k for k, record in problems.items() if record["image"]]
    assert list(captions) == with_image
    assert len(with_image) == 0.76 * NUM_QUESTIONS
    found = {path.parent for path in sample.glob("images/*/*/image.png")}
    assert found == {folder_of(sample, problems, question_id) for question_id in with_image}
    about = json.loads((sample / "dataset.json").read_text())
    assert about["name"] == "mmcot-sample"
    assert "CC0" in about["licence"]
    assert about["num_questions"] == NUM_QUESTIONS


def test_pictures_come_in_every_mode_and_several_shapes(sample, problems):
    modes = {"magnets": "RGBA", "maps": "P", "concentration": "RGB", "charts": "RGB"}
    for name, mode in {**modes, "thermometer": "L"}.items():
        pictures = [load_picture(sample, problems, k) for k in of_skill(problems, name)]
        assert {picture.mode for picture in pictures} == {mode}
        assert len({picture.size for picture in pictures}) >= 3
        aspects = [picture.width / picture.height for picture in pictures]
        if name == "magnets":
            assert min(aspects) >= 2
            assert all(picture.getextrema()[3] == (0, 255) for picture in pictures)
        elif name == "thermometer":
            assert max(aspects) < 0.5


def test_pictures_are_shared_within_a_split_only(sample, problems):
    """A test picture that was trained on would make the fusion model look better than it is."""
    users = defaultdict(list)
    for question_id, record in problems.items():
        if record["image"]:
            data = (folder_of(sample, problems, question_id) / "image.png").read_bytes()
            users[hashlib.sha256(data).digest()].append(record)
    shared = [records for records in users.values() if len(records) > 1]
    assert len(shared) >= 10
    for records in shared:
        assert len(records) == 2
        assert len({record["split"] for record in records}) == 1
        assert len({record["question"] for record in records}) == 2


def test_choice_pictures_are_complete_and_in_an_order_of_their_own(sample, problems):
    kinds = Counter()
    files = defaultdict(set)
    for path in sample.glob("images/*/*/choice_0.png"):
        record = problems[path.parent.name]
        numbered = sorted(path.parent.glob("choice_*.png"))
        assert len(numbered) == len(record["choices"])
        kinds[record["image"]] += 1
        if record["image"]:
            assert {load(file).mode for file in numbered} == {"RGBA"}
            files["first flag"].add(path.read_bytes())
    assert kinds[None] > 10
    assert kinds["image.png"] >= 3
    assert len(files["first flag"]) > 1


def test_second_pictures_are_the_same_legend(sample):
    legends = [path.read_bytes() for path in sample.glob("images/*/*/image_2.png")]
    assert len(legends) >= 2
    assert len(set(legends)) == 1


# Only the picture tells the answer


@pytest.mark.parametrize("name", IMAGE_SKILLS)
def test_text_is_the_same_for_every_answer(name):
    """Whatever reads the text alone can't tell the answer, because no part of it changes."""
    for number in range(1, 20):
        skill = IMAGE_SKILLS[name]
        numbers = (number, number + 1) if skill.write_again else (number,)
        assignment = Assignment(skill=name, split="train", numbers=numbers)
        drawn = compose(assignment, seed=3)
        ranges = [range(len(wording.choices)) for wording in drawn.wordings]
        for answers in product(*ranges):
            other = compose(assignment, seed=3, answers=answers)
            assert other.wordings == drawn.wordings
            for record, as_drawn, answer in zip(other.records, drawn.records, answers, strict=True):
                assert record["answer"] == answer
                told = {"answer", "solution"}
                assert {k: v for k, v in record.items() if k not in told} == {
                    k: v for k, v in as_drawn.items() if k not in told
                }


def test_best_guess_from_the_exact_text_stays_at_chance():
    """The strongest reader of text alone: the commonest answer of every text, learnt by heart."""
    counts, test = defaultdict(Counter), []
    for assignment in plan_sample(6000, seed=1):
        if assignment.skill not in IMAGE_SKILLS:
            continue
        composition = compose(assignment, seed=1)
        for wording, record in zip(composition.wordings, composition.records, strict=True):
            text = (wording.question, wording.choices, wording.hint, wording.caption)
            if record["split"] == "test":
                test.append((assignment.skill, text, record["answer"]))
            else:
                counts[text][record["answer"]] += 1
    hits, chances = defaultdict(list), defaultdict(list)
    for skill, text, answer in test:
        hits[skill].append(counts[text].most_common(1)[0][0] == answer)
        chances[skill].append(1 / len(text[1]))
    for skill in IMAGE_SKILLS:
        assert np.mean(hits[skill]) == pytest.approx(np.mean(chances[skill]), abs=0.1)
    everything = [np.concatenate(list(values.values())) for values in (hits, chances)]
    assert everything[0].mean() == pytest.approx(everything[1].mean(), abs=0.05)


@pytest.mark.parametrize("name", IMAGE_SKILLS)
def test_answers_are_uniform(name):
    answers = Counter()
    for number in range(1, 1001):
        assignment = Assignment(skill=name, split="train", numbers=(number,))
        (record,) = compose(assignment, seed=2).records
        answers[record["answer"]] += 1
    expected = 1000 / len(record["choices"])
    assert len(answers) == len(record["choices"])
    assert all(abs(count - expected) < 5 * expected**0.5 for count in answers.values())


# The picture shows the answer


def test_magnets_show_their_poles(sample, problems):
    for question_id, record in of_skill(problems, "magnets").items():
        picture = load_picture(sample, problems, question_id)
        masks = {name: colour_mask(picture, name) for name in ("red", "blue")}
        row = int(np.argwhere(masks["red"] | masks["blue"])[:, 0].mean())
        kinds = np.where(masks["red"][row], "N", np.where(masks["blue"][row], "S", ""))
        middle = picture.width // 2
        facing = kinds[:middle][kinds[:middle] != ""][-1], kinds[middle:][kinds[middle:] != ""][0]
        repel = record["choices"][record["answer"]] == "repel"
        assert (facing[0] == facing[1]) == repel
        told = [word for word in record["solution"].split() if word in ("north", "south")]
        assert [word[0].upper() for word in told] == list(facing)


def test_maps_show_the_farthest_flag_with_a_clear_margin(sample, problems):
    for question_id, record in of_skill(problems, "maps").items():
        picture = load_picture(sample, problems, question_id)
        flags = record["choices"]
        places = []
        for flag in flags:
            ys, xs = np.nonzero(colour_mask(picture, flag))
            places.append((xs.mean() / picture.width, ys.mean() / picture.height))
        axis = 0 if record["question"].rstrip("?").endswith(("east", "west")) else 1
        sign = -1 if record["question"].rstrip("?").endswith(("east", "south")) else 1
        along = sign * np.array(places)[:, axis]
        assert int(along.argmin()) == record["answer"]
        first, second = np.sort(along)[:2]
        assert second - first > 0.11
        sides = record["solution"].split(".")[0].removeprefix("On the map, ").split(", ")
        for flag, side in zip(flags, sides, strict=True):
            assert side.removeprefix("and ").startswith(f"{flag} is ")
        x, y = (np.array(places) - 0.5).T
        told = [side.rsplit(" ", 1)[1] for side in sides]
        assert [told[i] for i in (x.argmin(), y.argmin())] == ["west", "north"]


def test_beakers_hold_the_particles(sample, problems):
    for question_id, record in of_skill(problems, "concentration").items():
        picture = load_picture(sample, problems, question_id)
        centres = blobs(colour_mask(picture, "pink"))
        left = sum(x < picture.width / 2 for x, _ in centres)
        right = len(centres) - left
        assert {left, right} <= set(range(1, 7))
        assert record["answer"] == (0 if left > right else 1 if left < right else 2)
        told = [int(word) for word in record["solution"].split() if word.isdigit()]
        assert told == [left, right]


def test_charts_show_the_numbers(sample, problems):
    for question_id, record in of_skill(problems, "charts").items():
        picture = load_picture(sample, problems, question_id)
        column = np.asarray(picture)[:, int(picture.width * 0.125)].astype(int).min(axis=1)
        inside = np.flatnonzero(column < 250)
        lines = [
            start + (length - 1) / 2
            for value, start, length in runs(column[: inside[-1]] > 248)
            if value and start > inside[0]
        ]
        assert len(lines) == MAX_BAR
        step = np.diff(lines).mean()
        floor = lines[-1] + step
        heights = {}
        for bar in ("blue", "green", "red", "yellow"):
            heights[bar] = (floor - np.argwhere(colour_mask(picture, bar))[:, 0].min()) / step
            assert heights[bar] == pytest.approx(round(heights[bar]), abs=0.15)
        _, _, more, less = record["question"].rstrip("?").replace(" than", "").rsplit(" ", 3)
        many, few = round(heights[more]), round(heights[less])
        assert int(record["choices"][record["answer"]]) == many - few
        assert f" {many} - {few} = {many - few}. " in record["solution"]


def test_thermometers_show_the_temperature(sample, problems):
    for question_id, record in of_skill(problems, "thermometer").items():
        grey = np.asarray(load_picture(sample, problems, question_id)).astype(int)
        height, width = grey.shape
        tube = int(np.flatnonzero((grey < 90).sum(axis=0) > height * 0.08)[0] + width * 0.12)
        liquid = max((length, start) for dark, start, length in runs(grey[:, tube] < 90) if dark)[1]
        ticks = []
        for x in range(int(width * 0.5), int(width * 0.7)):
            found = [(start, length) for dark, start, length in runs(grey[:, x] < 130) if dark]
            if len(found) == 5 and all(length <= 4 for _, length in found):
                ticks = [start + (length - 1) / 2 for start, length in found]
        assert ticks
        nearest = int(np.argmin(np.abs(np.array(ticks[::-1]) - liquid)))
        assert abs(ticks[::-1][nearest] - liquid) < 3
        assert record["choices"][record["answer"]] == f"{nearest * 10} °C"


# Writing


def test_same_settings_give_the_same_bytes(tmp_path):
    """With one worker or two; another seed gives other pictures and other answers."""
    for name, seed, num_workers in (("one", 5, 1), ("two", 5, 2), ("other", 6, 1)):
        draw_sample(
            tmp_path / name, num_questions=MIN_QUESTIONS, seed=seed, num_workers=num_workers
        )
    one, two, other = (tree(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one["problems.json"] != other["problems.json"]
    assert one["pid_splits.json"] != other["pid_splits.json"]
    pictures = [{v for k, v in files.items() if k.endswith("/image.png")} for files in (one, other)]
    assert len(pictures[0] & pictures[1]) < 0.2 * len(pictures[0])


def test_progress_reaches_the_total(tmp_path):
    calls = []
    draw_sample(
        tmp_path / "sample",
        num_questions=MIN_QUESTIONS,
        num_workers=1,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == sorted(calls)
    assert calls[-1] == (MIN_QUESTIONS, MIN_QUESTIONS)
    assert len(calls) > 1


def test_an_interrupted_drawing_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    for num_workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            draw_sample(
                tmp_path / "sample",
                num_questions=MIN_QUESTIONS,
                num_workers=num_workers,
                on_progress=interrupt,
            )
        assert list(tmp_path.iterdir()) == []


def test_a_complete_sample_is_kept(sample):
    def unexpected(done, total):
        raise AssertionError("drawn again")

    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    draw_sample(sample, num_questions=NUM_QUESTIONS, on_progress=unexpected)
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before


def test_other_settings_are_refused_with_the_difference(sample):
    with pytest.raises(DataError, match=r"seed is 0, asked for 9"):
        draw_sample(sample, num_questions=NUM_QUESTIONS, seed=9)
    with pytest.raises(DataError, match=r"num_questions is 200, asked for 300"):
        draw_sample(sample, num_questions=300)


def test_a_foreign_or_damaged_folder_is_refused(tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(DataError, match="not a drawn sample"):
        draw_sample(foreign)
    (foreign / "dataset.json").write_text("[")
    with pytest.raises(DataError, match="not a JSON object"):
        draw_sample(foreign)
    damaged = tmp_path / "damaged"
    draw_sample(damaged, num_questions=MIN_QUESTIONS, num_workers=1)
    next(damaged.glob("images/*/*/image.png")).unlink()
    with pytest.raises(DataError, match="lacks 1 of"):
        draw_sample(damaged, num_questions=MIN_QUESTIONS)
    (damaged / "captions.json").unlink()
    with pytest.raises(DataError, match=r"lacks captions\.json"):
        draw_sample(damaged, num_questions=MIN_QUESTIONS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_questions": MIN_QUESTIONS - 1}, "at least 100 questions, got 99"),
        ({"seed": -1}, "seed of 0 or more, got -1"),
        ({"num_workers": 0}, "at least 1 worker, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        draw_sample(tmp_path / "sample", **settings)
    assert list(tmp_path.iterdir()) == []
