"""Captions by a model: those of one-picture calls, once a picture, kept whatever stops the run."""

import hashlib
import json
import logging
import shutil
import signal
import subprocess
import sys

import huggingface_hub.constants
import numpy as np
import polars as pl
import polars.testing
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)

from mmcot_data.captioning import CAPTIONERS, CaptionConfig, CaptionerConfig, loading
from mmcot_data.captioning.engine import generate_captions
from mmcot_data.captioning.loading import load_captioner
from mmcot_data.captioning.run import begin_captions, caption_images
from mmcot_data.errors import DataError, EncoderError, ExtractionError, GenerationError
from mmcot_data.extraction.scan import scan_images
from mmcot_data.sources import open_source
from mmcot_data.text_artifacts import read_made_by
from tests.data.caption_models import SAVE
from tests.data.fake_captioner import FakeCaptioner

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROMPT = "describe this picture"
SIZES = [(20, 30), (30, 20), (16, 16), (40, 17), (25, 25), (31, 44), (18, 60)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, save in SAVE.items():
        save(root / name)
    return root


@pytest.fixture
def pictures(tmp_path):
    return draw(tmp_path / "pictures")


def draw(folder, sizes=SIZES, seed=0):
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number, (width, height) in enumerate(sizes):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def request(data, name="tiny", *, out=None, **options):
    of_captioner = {
        key: options.pop(key)
        for key in list(options)
        if key in CaptionerConfig.__dataclass_fields__ and key != "name"
    }
    return CaptionConfig(
        data=data,
        out=out or data.parent / "shards",
        captioner=CaptionerConfig(name=name, **of_captioner),
        **options,
    )


def captions(path):
    return {row["question_id"]: row["caption"] for row in pl.read_parquet(path).to_dicts()}


def refuse_to_load(monkeypatch):
    def load(config):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(loading, "load_captioner", load)


@torch.inference_mode()
def one_by_one(folder, data, prompt, **generation):
    """What transformers' own calls give for each picture alone, as model cards write them."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    texts = {}
    for path in sorted(data.iterdir()):
        image = Image.open(path).convert("RGB")
        if folder.name == "vit-gpt2":
            tokenizer = AutoTokenizer.from_pretrained(folder)
            inputs = AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")
        else:
            processor = AutoProcessor.from_pretrained(folder)
            tokenizer = processor.tokenizer
            if folder.name in ("llava", "qwen2-vl"):
                content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
                inputs = processor.apply_chat_template(
                    [{"role": "user", "content": content}],
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
            else:
                inputs = processor(images=image, text=prompt, return_tensors="pt")
        num_before = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        if folder.name == "blip":
            num_before -= 1  # [SEP] is not repeated
        tokens = model.generate(**inputs, do_sample=False, **generation)[0, max(num_before, 0) :]
        texts[path.name] = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return texts


@pytest.mark.parametrize(
    ("name", "prompt", "num_beams"),
    [
        ("vit-gpt2", None, 4),
        ("blip", None, 3),
        ("blip", PROMPT, 1),
        ("blip2", None, 1),
        ("blip2", PROMPT, 3),
        ("instructblip", CAPTIONERS["instructblip"].prompt, 5),
        ("llava", "describe this image", 1),
        ("qwen2-vl", "describe this image", 2),
    ],
)
def test_captions_are_those_of_one_picture_calls(models, pictures, name, prompt, num_beams):
    """Catches a wrong class, a lost or repeated prompt, and captions that batch mates change."""
    penalty = CAPTIONERS[name].repetition_penalty if name in CAPTIONERS else 1.0
    generation = {"num_beams": num_beams, "max_new_tokens": 9, "repetition_penalty": penalty}
    expected = one_by_one(models / name, pictures, prompt, **generation)
    assert len(set(expected.values())) > 2
    captioner = name if name in CAPTIONERS else f"hf:{models / name}"
    for batch_size in (5, 1):
        summary = caption_images(
            request(
                pictures,
                captioner,
                model=str(models / name) if name in CAPTIONERS else None,
                prompt=prompt if name != "instructblip" else None,
                num_beams=num_beams,
                max_new_tokens=9,
                batch_size=batch_size,
                producer=f"batches-of-{batch_size}",
            )
        )
        assert summary.num_made == len(SIZES)
        found = captions(summary.path)
        assert {path.name: found[path.name] for path in pictures.iterdir()} == expected
    settings = read_made_by(summary.path)["settings"]
    assert (settings["model_id"], settings["prompt"]) == (name, prompt)
    if name == "llava":
        assert settings["prompt_as_given"] == "user : <image> describe this image assistant :"


def test_sampling_that_a_model_asks_for_is_not_done(models, pictures, tmp_path, caplog):
    """A generation_config.json with do_sample would give other captions in each run."""
    folder = tmp_path / "llava"
    shutil.copytree(models / "llava", folder)
    config = GenerationConfig.from_pretrained(folder)
    config.update(do_sample=True, temperature=3.0, top_k=7, max_length=20)
    config.save_pretrained(folder)
    caplog.set_level(logging.WARNING)
    made = [
        captions(caption_images(request(pictures, f"hf:{each}", producer=str(number))).path)
        for number, each in enumerate([folder, folder, models / "llava"])
    ]
    assert made[0] == made[1] == made[2]
    assert not [record for record in caplog.records if "transformers" in record.name]


def test_a_model_of_the_hub_is_known_by_its_commit(models, pictures, tmp_path, monkeypatch):
    """The hub's cache without network, by id; a rerun knows the commit without loading."""
    cached = tmp_path / "hub" / "models--someone--blip"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    shutil.copytree(models / "blip", cached / "snapshots" / COMMIT)
    config = request(pictures, "hf:someone/blip")
    summary = caption_images(config)
    assert summary.path.name == "blip.parquet"
    settings = read_made_by(summary.path)["settings"]
    assert (settings["model_id"], settings["revision"]) == ("someone/blip", COMMIT)
    refuse_to_load(monkeypatch)
    assert caption_images(config).num_made == 0
    with pytest.raises(AssertionError, match="is loaded"):
        caption_images(request(pictures, "hf:someone/blip", num_beams=2))


def test_missing_weights_are_refused_but_an_unused_pooler_may_be_absent(models, tmp_path, pictures):
    """transformers draws what is missing at random; old ViT + GPT-2 checkpoints lack the pooler."""
    folder = tmp_path / "model"
    shutil.copytree(models / "vit-gpt2", folder)
    weights = load_file(folder / "model.safetensors")
    pooler = {name: value for name, value in weights.items() if "pooler" in name}
    assert pooler
    without = {name: value for name, value in weights.items() if name not in pooler}
    save_file(without, folder / "model.safetensors", {"format": "pt"})
    whole, lacking = (
        caption_images(request(pictures, model=str(each), name="vit-gpt2", producer=each.name))
        for each in (models / "vit-gpt2", folder)
    )
    assert captions(whole.path) == captions(lacking.path)
    digests = {read_made_by(each.path)["settings"]["weights_sha256"] for each in (whole, lacking)}
    assert len(digests) == 1
    del without["decoder.transformer.h.0.mlp.c_fc.weight"]
    save_file(without, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match="lacks 1 weights"):
        load_captioner(CaptionerConfig(name="vit-gpt2", model=str(folder)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "tiny", "prompt": "x"}, "takes no prompt"),
        ({"name": "tiny", "model": "x/y"}, "loads no model"),
        ({"name": "vit-gpt2", "model": "{models}/vit-gpt2", "prompt": "x"}, "takes no prompt"),
        ({"name": "blip", "model": "{models}/none"}, "does not exist"),
        ({"name": "blip"}, "cannot be loaded"),
        ({"name": "hf:{models}/vision"}, "type 'vit', expected one that writes text"),
        ({"name": "hf:{models}/bare"}, "tokenizer holds 5 tokens and the model writes 48"),
    ],
)
def test_models_that_do_not_fit_are_refused(models, options, message):
    """Each would else end in a traceback of transformers, or in captions without the prompt."""
    if "vision" in options["name"]:
        (models / "vision").mkdir(exist_ok=True)
        (models / "vision" / "config.json").write_text(json.dumps({"model_type": "vit"}))
    if "bare" in options["name"]:
        shutil.copytree(models / "blip", models / "bare", dirs_exist_ok=True)
        for path in models.glob("bare/*token*"):
            path.unlink()
    options = {
        key: value.replace("{models}", str(models)) if isinstance(value, str) else value
        for key, value in options.items()
    }
    with pytest.raises(EncoderError, match=message):
        load_captioner(CaptionerConfig(**options))


def test_a_model_without_the_prompt_that_it_needs_is_explained(models, pictures, tmp_path):
    """Without its chat template this model gets no text, which its code meets with a traceback."""
    folder = tmp_path / "no-template"
    shutil.copytree(models / "llava", folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(GenerationError, match="it may need a prompt"):
        caption_images(request(pictures, f"hf:{folder}"))


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "tf32"},
        {"num_beams": 0},
        {"max_new_tokens": 0},
        {"repetition_penalty": 0.0},
        {"prompt": " "},
        {"batch_size": 0},
        {"roles": ()},
        {"max_failures": "some"},
        {"layout": "zip"},
        {"random_weights": 1, "revision": "main"},
    ],
)
def test_impossible_requests_are_refused_before_anything_is_read(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        request(tmp_path / "nothing", **options)


def test_precision_and_drawn_weights(models, pictures):
    """bf16 must be that of the weights; one seed must give one model."""
    name = f"hf:{models / 'blip'}"
    drawn = [
        load_captioner(CaptionerConfig(name=name, random_weights=seed)).describe()["weights_sha256"]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    half = load_captioner(CaptionerConfig(name=name, precision="bf16"))
    assert half.describe()["precision"] == "bf16"
    assert {weight.dtype for weight in half._model.parameters()} == {torch.bfloat16}
    summary = caption_images(request(pictures, name, precision="bf16"))
    assert summary.num_captions == len(SIZES)


def test_equal_pictures_are_captioned_once_and_a_rerun_loads_no_model(pictures, monkeypatch):
    """Duplicates are a fifth of ScienceQA; a rerun must cost no more than reading the pictures."""
    shutil.copy(pictures / "0.png", pictures / "0-again.png")
    fake = FakeCaptioner()
    summary = caption_images(request(pictures), captioner=fake)
    assert (summary.num_images, summary.num_made, fake.num_captioned) == (8, 7, 7)
    table = pl.read_parquet(summary.path)
    assert table.columns == ["question_id", "role", "caption", "image_sha256"]
    assert captions(summary.path)["0.png"] == captions(summary.path)["0-again.png"]

    config = request(pictures, producer="drawn", batch_size=3)
    made = caption_images(config)
    before = made.path.stat()
    refuse_to_load(monkeypatch)
    again = caption_images(config)
    assert (again.num_made, again.num_captions) == (0, 8)
    assert made.path.stat().st_mtime_ns == before.st_mtime_ns
    monkeypatch.undo()

    shutil.copy(pictures / "1.png", pictures / "1-again.png")
    grown = caption_images(config)
    assert (grown.num_made, grown.num_captions) == (0, 9)


def test_captions_of_changed_pictures_are_made_anew_and_no_others(pictures):
    """A caption must never describe the picture that was there before."""
    fake = FakeCaptioner()
    first = captions(caption_images(request(pictures), captioner=fake).path)
    Image.new("RGB", (9, 9), "red").save(pictures / "3.png")
    summary = caption_images(request(pictures), captioner=fake)
    second = captions(summary.path)
    assert summary.num_made == 1
    assert {name for name in first if first[name] != second[name]} == {"3.png"}
    assert [run["num_captioned"] for run in read_made_by(summary.path)["runs"]] == [7, 1]


def test_a_changed_picture_is_noticed_before_the_model_is_loaded(pictures, monkeypatch):
    """The quick look at a finished table must compare pictures, not only count them."""
    config = request(pictures)
    caption_images(config)
    Image.new("RGB", (9, 9), "red").save(pictures / "3.png")
    with monkeypatch.context() as patch:
        refuse_to_load(patch)
        with pytest.raises(AssertionError, match="is loaded"):
            caption_images(config)
    summary = caption_images(config)
    assert summary.num_made == 1
    digests = dict(pl.read_parquet(summary.path).select("question_id", "image_sha256").rows())
    assert digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures.iterdir()
    }


def test_captions_follow_pictures_that_change_places(pictures):
    """All digests are known, but each caption is at the other's place; it must not stay there."""
    first = captions(caption_images(request(pictures), captioner=FakeCaptioner()).path)
    (pictures / "1.png").rename(pictures / "x")
    (pictures / "2.png").rename(pictures / "1.png")
    (pictures / "x").rename(pictures / "2.png")
    summary = caption_images(request(pictures), captioner=FakeCaptioner())
    assert captions(summary.path) == first | {"1.png": first["2.png"], "2.png": first["1.png"]}


def test_other_weights_in_the_same_folder_are_noticed_by_a_rerun(models, pictures, tmp_path):
    """Stale captions of a model that was trained on would pass for those of the new one."""
    folder = tmp_path / "model"
    shutil.copytree(models / "blip", folder)
    config = request(pictures, f"hf:{folder}")
    caption_images(config)
    (folder / "model.safetensors").touch()
    assert caption_images(config).num_made == 0  # loaded, compared, the same
    SAVE["blip"](folder, seed=9)
    with pytest.raises(DataError, match="weights_sha256 was"):
        caption_images(config)
    with pytest.raises(DataError, match=r"generation\.num_beams was 1, now 2"):
        caption_images(request(pictures, f"hf:{models / 'blip'}", producer="model", num_beams=2))


def test_a_run_killed_with_9_ends_in_the_table_of_an_undisturbed_one(tmp_path):
    """Captions that were made before a kill must be neither lost, nor doubled, nor moved."""
    data = draw(tmp_path / "pictures", sizes=SIZES * 3)
    quiet = caption_images(request(data, out=tmp_path / "quiet"), captioner=FakeCaptioner())
    program = (
        "import sys; from pathlib import Path; from tests.data.fake_captioner import *\n"
        f"die_in_call(4, Path({str(data)!r}), Path({str(tmp_path / 'killed')!r}), 3)"
    )
    process = subprocess.run([sys.executable, "-c", program], check=False)
    assert process.returncode == -signal.SIGKILL
    journal = tmp_path / "killed/captions/.tiny.journal.jsonl"
    num_kept = len(journal.read_text().splitlines()) - 1
    assert num_kept == 9
    fake = FakeCaptioner()
    config = request(data, out=tmp_path / "killed", batch_size=2)  # other than before
    summary = caption_images(config, captioner=fake)
    assert fake.num_captioned == len(SIZES) * 3 - num_kept
    pl.testing.assert_frame_equal(pl.read_parquet(summary.path), pl.read_parquet(quiet.path))
    assert not journal.exists()


def test_chunks_end_in_the_table_of_one_go(pictures):
    """An orchestrator captions N pictures a task; a chunk must not repeat or skip any."""
    fake = FakeCaptioner()
    whole = caption_images(request(pictures, producer="whole"), captioner=FakeCaptioner())
    done = []
    with begin_captions(request(pictures), captioner=fake) as making:
        with pytest.raises(ValueError, match="7 pictures are pending"):
            making.finish()
        while making.num_pending:
            making.caption_pending(lambda *numbers: done.append(numbers), limit=3)
        summary = making.finish()
    assert captions(summary.path) == captions(whole.path)
    assert fake.num_captioned == len(SIZES)
    assert [number for number, _ in done] == sorted(number for number, _ in done)
    assert done[-1] == (7, 7)


def test_failed_pictures_are_listed_and_tried_again(pictures, monkeypatch):
    """A bad picture must cost neither the others nor, after its repair, another whole run."""
    whole = (pictures / "2.png").read_bytes()
    (pictures / "2.png").write_bytes(whole[:-300])  # the header is fine
    (pictures / "4.png").write_bytes(b"")
    with pytest.raises(ExtractionError, match="--max-failures 0 allows 0"):
        caption_images(request(pictures, max_failures="0"))
    with pytest.raises(ExtractionError, match="2 of 7 pictures can't be used"):
        caption_images(request(pictures, max_failures="1"))
    config = request(pictures, max_failures="2")
    summary = caption_images(config)
    assert summary.failed == {"empty": 1, "truncated": 1}
    assert summary.num_captions == 5
    assert summary.num_made == 0  # the run that failed in the end made them
    listed = read_made_by(summary.path)["failures"]
    assert {(each["question_id"], each["reason"]) for each in listed} == {
        ("2.png", "truncated"),
        ("4.png", "empty"),
    }
    with monkeypatch.context() as patch:
        refuse_to_load(patch)
        assert caption_images(config).failed == summary.failed
    (pictures / "2.png").write_bytes(whole)
    summary = caption_images(config)
    assert (summary.num_made, summary.failed) == (1, {"empty": 1})
    assert [each["question_id"] for each in read_made_by(summary.path)["failures"]] == ["4.png"]


def test_a_picture_that_changes_meanwhile_stops_the_run(pictures):
    """Else the caption would be filed under the digest of another picture."""
    fake = FakeCaptioner()
    with begin_captions(request(pictures), captioner=fake) as making:
        Image.new("RGB", (16, 16)).save(pictures / "2.png")
        with pytest.raises(ExtractionError, match="has changed since it was read"):
            making.caption_pending()


def test_batches_have_equal_shapes_and_few_pictures_wait(tmp_path):
    """Inputs of many sizes must neither be mixed in a batch nor pile up in memory."""
    sizes = [(16 + number % 40, 20) for number in range(200)]
    data = draw(tmp_path / "pictures", sizes=sizes)
    images = scan_images(open_source(data).images)
    fake = FakeCaptioner()
    found = [
        (image.file, text) for part in generate_captions(images, fake, 4) for image, text in part
    ]
    assert sorted(name for name, _ in found) == sorted(image.file for image in images)
    assert dict(found) == {
        path.name: fake.caption_of(Image.open(path).convert("RGB")) for path in data.iterdir()
    }
    assert fake.most_prepared_at_once < 8 * 4 + 2 * 4 + 8
    assert max(fake.batch_sizes) == 4


def test_transparent_pixels_become_what_was_asked_for(tmp_path):
    """Black captions of transparent drawings are the reference's trap."""
    data = tmp_path / "pictures"
    data.mkdir()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(data / "clear.png")
    for alpha, grey in (("white", 255), ("drop", 0)):
        fake = FakeCaptioner(alpha=alpha)
        summary = caption_images(
            request(data, alpha=alpha, producer=alpha, max_failures="0"), captioner=fake
        )
        expected = fake.caption_of(Image.new("RGB", (8, 8), (grey,) * 3))
        assert captions(summary.path) == {"clear.png": expected}


def test_nothing_to_caption_is_an_error(pictures):
    with pytest.raises(
        DataError, match="no pictures in the role choice_0; expected some of question"
    ):
        caption_images(request(pictures, roles=("choice_0",)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captions_of_a_gpu_are_those_of_the_cpu(models, pictures):
    name = f"hf:{models / 'blip'}"
    made = [
        captions(
            caption_images(
                request(pictures, name, device=device, precision="fp32", producer=device)
            ).path
        )
        for device in ("cpu", "cuda")
    ]
    assert made[0] == made[1]
