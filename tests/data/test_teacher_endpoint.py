"""Teachers behind a real HTTP server that speaks like an OpenAI-compatible one."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from openai_server import Fault, serve_openai
from teacher_questions import make_question, write_root

from mmcot_data.captions import Caption, write_captions
from mmcot_data.cli import main
from mmcot_data.errors import DataError, GenerationError
from mmcot_data.questions import read_questions, write_questions
from mmcot_data.teacher import (
    ClusterConfig,
    EndpointConfig,
    TeacherConfig,
    generate_teacher_rationales,
)
from mmcot_data.teacher.clusters import cluster_texts, order_clusters
from mmcot_data.teacher.prompts import question_block
from mmcot_data.text_artifacts import read_made_by

pytest.importorskip("openai")
cluster = pytest.importorskip("sklearn.cluster")

KEY = "sk-a-key-that-must-not-leak"
CUE = "Let's think step by step."
EXTRACT = "Therefore, among A through"


def think(body):
    """A teacher that always answers (B), and says what it was asked about."""
    prompt = body["messages"][0]["content"]
    if EXTRACT in prompt:
        return " (B)."
    asked = prompt.rpartition("Q: ")[2].partition("?")[0]
    return f" {asked}, it seems.\nQ: and so on"


def request_for(server, root, **values):
    names = ("concurrency", "timeout", "retries", "limit_parameter", "no_thinking", "url")
    given = {name: values.pop(name) for name in names if name in values}
    teacher = EndpointConfig(model="big", **{"url": server.url, "retries": 2} | given)
    return TeacherConfig(artifacts=root, teacher=teacher, **values)


@pytest.fixture
def root(tmp_path):
    write_root(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def quick(monkeypatch):
    """Waits of the client's own choice are short; those that a server asks for are not."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("mmcot_data.teacher.endpoint._FIRST_WAIT", 0.01)


def test_each_rationale_is_two_requests_and_one_row(root):
    """The second must hold the first's completion; gold only judges what comes back."""
    with serve_openai(think) as server:
        summary = generate_teacher_rationales(
            request_for(server, root, samples=2, temperature=0.7, top_p=0.9, max_new_tokens=77)
        )
        prompts = server.prompts
    first = [r.body for r in server.requests if EXTRACT not in r.body["messages"][0]["content"]]
    second = [r.body for r in server.requests if EXTRACT in r.body["messages"][0]["content"]]
    assert (len(first), len(second)) == (12, 12)
    assert {
        (b["model"], b["temperature"], b["top_p"], b["max_tokens"], tuple(b["stop"])) for b in first
    } == {("big", 0.7, 0.9, 77, ("\nQ:",))}
    assert len({body["seed"] for body in first}) == 12
    assert all(0 <= body["seed"] < 2**31 for body in first)
    assert {(b["temperature"], b["max_tokens"], "seed" in b) for b in second} == {(0.0, 32, False)}
    assert all(request.authorization is None for request in server.requests)
    table = pl.read_parquet(summary.path)
    assert table["question_id"].to_list() == [str(q) for q in range(6) for _ in range(2)]
    for row in table.iter_rows(named=True):
        assert row["prompt"] in prompts
        assert row["answer_prompt"] in prompts
        name = re.match(r"Q: (.*?)\?", row["prompt"])[1]
        assert row["rationale"] == f"Solution: {name}, it seems."
        assert row["answer_prompt"].startswith(f"{row['prompt']} {name}, it seems.\n{EXTRACT}")
        assert row["correct"] == (int(row["question_id"]) % 2 == 1)
    assert set(table["answer"]) == {1}
    assert summary.accuracy == summary.majority_accuracy == 0.5
    assert not any(secret in prompt for prompt in prompts for secret in ("SECRET", "answer: "))
    made_by = read_made_by(summary.path)
    assert made_by["settings"]["teacher"] == {"kind": "endpoint", "model": "big"}
    assert made_by["made_with"]["host"] == "127.0.0.1"
    assert made_by["made_with"]["system_fingerprints"] == ["fp_1"]
    assert made_by["splits"]["train"]["majority_accuracy"] == 0.5


def test_the_filter_marks_and_a_rerun_asks_nothing(root):
    """Rows that a rule drops must stay for other rules, and paid requests be sent once."""
    with serve_openai(think) as server:
        request = request_for(server, root, keep="correct")
        summary = generate_teacher_rationales(request)
        assert (summary.num_kept, summary.num_rationales) == (3, 6)
        table = pl.read_parquet(summary.path)
        assert table["kept"].to_list() == [number % 2 == 1 for number in range(6)]
        num = len(server.requests)
        stamp = summary.path.stat().st_mtime_ns
        assert generate_teacher_rationales(request).num_new == 0
        assert summary.path.stat().st_mtime_ns == stamp
        elsewhere = replace(request, teacher=replace(request.teacher, url="http://localhost:1/v1"))
        assert generate_teacher_rationales(elsewhere).num_new == 0
        generate_teacher_rationales(replace(request, keep="majority"))
        assert pl.read_parquet(summary.path)["kept"].all()
        assert len(server.requests) == num


def test_the_key_goes_to_the_server_and_nowhere_else(root, monkeypatch, caplog, capfd):
    """A key in an artifact that is passed on, or in a log, is stolen."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serve_openai(think, key=KEY) as server:
        generate_teacher_rationales(request_for(server, root))
        assert {request.authorization for request in server.requests} == {f"Bearer {KEY}"}
        monkeypatch.setenv("OPENAI_API_KEY", KEY + "x")
        with pytest.raises(GenerationError, match="not one of this server") as caught:
            generate_teacher_rationales(request_for(server, root, producer="other"))
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(GenerationError, match="set the environment variable OPENAI_API_KEY"):
            generate_teacher_rationales(request_for(server, root, producer="other"))
    found = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in content for content in found)
    out, err = capfd.readouterr()
    assert KEY not in caplog.text + out + err + str(caught.value)


@pytest.mark.parametrize("wrong", ["\n", "\r", " x", "\t", "\u00e9", "\x00"])
def test_what_can_be_no_key_is_refused_and_not_told(root, monkeypatch, wrong):
    """The client's own error quotes the whole header, and tries for minutes before."""
    key = f"{KEY}{wrong}"
    monkeypatch.setattr("os.environ", {**os.environ, "OPENAI_API_KEY": key})
    with serve_openai(think) as server:
        with pytest.raises(GenerationError, match="variable OPENAI_API_KEY holds no key") as caught:
            generate_teacher_rationales(request_for(server, root))
        assert not server.requests
    assert KEY not in str(caught.value)


def test_a_lost_connection_does_not_tell_what_was_sent(root, monkeypatch, quick):
    """Texts of the client below may quote headers, and with them the key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("mmcot_data.teacher.endpoint._read_key", lambda _: f"{KEY}\r")
    with serve_openai(think) as server:
        with pytest.raises(GenerationError, match="cannot be reached") as caught:
            generate_teacher_rationales(request_for(server, root, retries=0))
        config = request_for(server, root, retries=0)
    assert KEY not in str(caught.value)
    monkeypatch.undo()
    with pytest.raises(GenerationError, match="Connection refused"):
        generate_teacher_rationales(config)


def test_accounts_of_the_environment_are_sent_to_no_server(root, monkeypatch):
    """The client adds them to every request, whoever the server belongs to."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    with serve_openai(think) as server:
        generate_teacher_rationales(request_for(server, root, limit=1))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        generate_teacher_rationales(request_for(server, root, limit=2))
        assert len(server.requests) == 4
        assert not any("secret" in str(request.headers) for request in server.requests)
        assert server.requests[-1].authorization == f"Bearer {KEY}"


def test_wrong_urls_and_models_end_at_once(root):
    """Retrying what can't succeed would only cost time."""
    with serve_openai(think) as server:
        with pytest.raises(GenerationError, match="usually ends in /v1"):
            generate_teacher_rationales(
                request_for(server, root, url=server.url[:-3], concurrency=1)
            )
        assert len(server.requests) == 1
        server.reply = lambda _: Fault(
            status=404, body={"error": {"message": "The model `big` does not exist."}}
        )
        with pytest.raises(GenerationError, match="The model `big` does not exist"):
            generate_teacher_rationales(request_for(server, root, concurrency=1))
        server.reply = lambda _: Fault(
            status=400, body={"error": {"message": "use max_completion_tokens"}}
        )
        with pytest.raises(GenerationError, match="use max_completion_tokens"):
            generate_teacher_rationales(request_for(server, root, concurrency=1))
        server.reply = lambda _: Fault(status=422, body={"error": "`max_new_tokens` must be <= 9"})
        with pytest.raises(GenerationError, match="422: `max_new_tokens` must be <= 9"):
            generate_teacher_rationales(request_for(server, root, concurrency=1))
        server.reply = lambda _: Fault(status=422, body={"detail": [{"msg": "unknown field"}]})
        with pytest.raises(GenerationError, match="unknown field"):
            generate_teacher_rationales(request_for(server, root, concurrency=1))
        server.reply = lambda _: Fault(status=400, body=b"as plain text")
        with pytest.raises(GenerationError, match="400: as plain text"):
            generate_teacher_rationales(request_for(server, root, concurrency=1))
        assert len(server.requests) == 6
        server.reply = think
        config = request_for(server, root, limit_parameter="max_completion_tokens", limit=1)
        generate_teacher_rationales(config)
        assert server.requests[-1].body["max_completion_tokens"] == 32


def test_a_server_that_asks_to_wait_is_given_the_time(root, quick):
    """Coming back at once would be refused again, and again."""
    with serve_openai(think) as server:
        server.faults.append(Fault(status=429, body={}, headers={"Retry-After": "0.6"}))
        generate_teacher_rationales(request_for(server, root, limit=1, concurrency=1))
        times = [request.time for request in server.requests]
        assert len(times) == 3
        assert times[1] - times[0] >= 0.6


def test_failures_that_pass_are_tried_again(root, quick):
    """In days of requests each of these happens; none may end the run or become a row."""
    faults = [
        Fault(status=500, body={}),
        Fault(body=b"{not JSON"),
        Fault(body=b"<html>", headers={"Content-Type": "text/html"}),
        Fault(body={"choices": []}),
        Fault(body={"choices": [{"index": 0}]}),
        Fault(body={"choices": "none"}),
        Fault(body={"choices": [{"index": 0, "message": {"content": 7}}]}),
        Fault(body=[]),
        Fault(status=503, body=b"busy"),
        Fault(body={"id": "c", "choices": []}, is_cut=True),
    ]
    with serve_openai(think) as server:
        config = request_for(server, root, limit=1, concurrency=1, retries=3)
        for number, fault in enumerate(faults):
            server.faults.append(fault)
            summary = generate_teacher_rationales(replace(config, producer=f"p{number}"))
            assert not server.faults
            assert summary.finish_reasons == {"stop": 1}
            assert len(server.requests) == 3
            server.requests.clear()
        server.faults += [Fault(body={"choices": []})] * 4
        with pytest.raises(GenerationError, match="no chat completion"):
            generate_teacher_rationales(config)


def test_odd_texts_are_rows(root, quick):
    """A question that a server refuses must not stop the others, nor be kept for training."""
    odd = {
        "0": ("half of", "content_filter"),
        "1": ("so it goes on", "length"),
        "2": (None, "stop"),
        "3": Fault(status=400, body={"error": {"message": "maximum context length is 9"}}),
        "4": Fault(status=400, body={"error": {"message": "no", "code": "content_filter"}}),
        "5": ("half \ud800 a pair", "stop"),
        "6": Fault(body={"choices": [{"index": 0, "message": {"refusal": "No."}}]}),
    }

    def reply(body):
        prompt = body["messages"][0]["content"]
        if EXTRACT in prompt:
            return "(A)"
        return odd[re.search(r"number (\d)", prompt)[1]]

    write_root(root, 7)
    with serve_openai(reply) as server:
        summary = generate_teacher_rationales(request_for(server, root))
        assert len(server.requests) == 10
    rows = pl.read_parquet(summary.path).select(
        "question_id", "finish_reason", "answer", "kept", "rationale"
    )
    assert rows.rows() == [
        ("0", "content_filter", 0, False, "Solution: half of"),
        ("1", "length", 0, True, "Solution: so it goes on"),
        ("2", "stop", None, False, "Solution:"),
        ("3", "too_long", None, False, "Solution:"),
        ("4", "content_filter", None, False, "Solution:"),
        ("5", "stop", 0, True, "Solution: half ? a pair"),
        ("6", "refusal", None, False, "Solution:"),
    ]
    assert (summary.num_truncated, summary.num_unanswered, summary.num_kept) == (1, 4, 2)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "This model's maximum context length is 4096 tokens."}),
        (400, {"message": "too many", "code": "context_length_exceeded"}),
        (400, {"message": "the request exceeds the available context size. Try more"}),
        (400, {"code": 400, "message": "no", "type": "exceed_context_size_error"}),
        (
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 1",
        ),
        (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"),
    ],
)
def test_a_question_that_is_too_long_becomes_a_row(root, status, error):
    """Else it ends this run and every one after it, in the words of each server."""
    with serve_openai(think) as server:
        server.faults.append(Fault(status=status, body={"error": error}))
        summary = generate_teacher_rationales(request_for(server, root, limit=2, concurrency=1))
    assert summary.finish_reasons == {"too_long": 1, "stop": 1}
    assert summary.num_kept == 1


def test_thinking_is_switched_off_on_request_only(root):
    """OpenAI refuses what vLLM understands; a table must not mix what was asked differently."""
    off = {"enable_thinking": False}
    with serve_openai(think) as server:
        path = generate_teacher_rationales(request_for(server, root, limit=1)).path
        assert not any("chat_template_kwargs" in request.body for request in server.requests)
        assert "thinking" not in read_made_by(path)["settings"]["teacher"]
        server.requests.clear()
        config = request_for(server, root, limit=1, no_thinking=True)
        with pytest.raises(DataError, match=r"teacher\.thinking was None, now False"):
            generate_teacher_rationales(config)
        generate_teacher_rationales(replace(config, producer="p"))
        assert [request.body["chat_template_kwargs"] for request in server.requests] == [off, off]


def test_rows_of_thoughts_alone_are_told_and_not_kept(root, capsys):
    """They look like rationales, and a table of them like one that is ready to train on."""

    def reply(body):
        prompt = body["messages"][0]["content"]
        if EXTRACT in prompt:
            return ("<think>Is it", "length") if "number 2" in prompt else "<think></think>(B)"
        if "number 1" in prompt:
            return "<think>Let me see. The answer is (B)", "length"
        return "<think>\nHm.\n</think>\n\nIt is."

    with serve_openai(reply) as server:
        given = ["rationales", "teacher", str(root), "--model", "big", "--url", server.url]
        assert main([*given, "--limit", "3", "--no-thinking"]) == 0
    assert "2 rationales have NO END OF THINKING" in capsys.readouterr().err
    table = pl.read_parquet(root / "rationales" / "teacher.parquet")
    assert table.select("rationale", "answer", "kept", "finish_reason").rows() == [
        ("Solution: It is.", 1, True, "stop"),
        ("Solution:", None, False, "length"),
        ("Solution: It is.", None, True, "stop"),
    ]
    assert table["completion"][0] == "<think>\nHm.\n</think>\n\nIt is."
    assert all("chat_template_kwargs" in request.body for request in server.requests)


def test_other_captions_refuse_to_continue_a_table(root):
    """Rows that are to come would show other texts than the name of the producer promises."""
    path = root / "captions" / "c.parquet"

    def write(texts, **made_by):
        write_captions(path, [Caption(question_id=k, caption=v) for k, v in texts.items()], made_by)

    old = {str(number): f"caption {number}" for number in range(8)}
    write(old)
    with serve_openai(think) as server:
        config = request_for(server, root, captions="c", limit=3)
        generate_teacher_rationales(config)
        write(dict(reversed(old.items())), again=1)  # the same texts
        assert generate_teacher_rationales(replace(config, limit=4)).num_new == 1
        write(old | {"7": "another"})
        with pytest.raises(DataError, match="captions_sha256 was"):
            generate_teacher_rationales(replace(config, limit=None))


def test_other_demonstrations_refuse_to_continue_a_table(root, tmp_path):
    """Prompts that show other examples are another method."""
    file = tmp_path / "demos.jsonl"
    row = {"question": "Q?", "choices": ["x", "y"], "rationale": "R.", "answer": "B"}
    file.write_text(json.dumps(row))
    with serve_openai(think) as server:
        config = request_for(server, root, method="few-shot-cot", demonstrations=file, limit=1)
        generate_teacher_rationales(config)
        file.write_text(json.dumps(row | {"rationale": "S."}))
        with pytest.raises(DataError, match="demonstrations_sha256 was"):
            generate_teacher_rationales(replace(config, limit=2))
        assert len(server.requests) == 1


def test_corrected_answers_judge_all_rows_anew(root):
    """A stale mark would keep chains of wrong answers, and report a wrong accuracy."""
    with serve_openai(think) as server:
        config = request_for(server, root, keep="correct")
        assert generate_teacher_rationales(config).num_kept == 3
        num = len(server.requests)
        questions = [replace(q, answer=int(q.question_id) % 3 % 2) for q in read_questions(root)]
        (root / "questions.parquet").unlink()
        write_questions(
            root / "questions.parquet", [replace(questions[0], answer=None), *questions[1:]]
        )
        summary = generate_teacher_rationales(replace(config, limit=1))
        assert (summary.num_judged, summary.num_kept) == (0, 0)
        assert len(server.requests) == num
    table = pl.read_parquet(summary.path)
    assert table["correct"].to_list() == [None, True, False, False, True, False]
    assert table["kept"].to_list() == [False, True, False, False, True, False]
    assert read_made_by(summary.path)["splits"]["train"]["accuracy"] == 2 / 5


def test_a_server_that_goes_leaves_what_is_complete(root, quick):
    """Hours of paid requests must survive; the next run asks only for the rest."""
    with serve_openai(think) as server:
        config = request_for(server, root, concurrency=1, retries=1)

        def die(body):
            if len(server.requests) > 5:
                return Fault(status=500, body={})
            return think(body)

        server.reply = die
        with pytest.raises(GenerationError, match="What is complete stays"):
            generate_teacher_rationales(config)
        server.reply = think
        server.requests.clear()
        assert generate_teacher_rationales(config).num_new == 4
        assert len(server.requests) == 8
    gone = replace(config, producer="other")
    with pytest.raises(GenerationError, match="cannot be reached, tried 2 times"):
        generate_teacher_rationales(gone)


def test_what_is_under_way_when_another_fails_is_kept(root):
    """Requests beside the one that fails are paid as well."""

    def reply(body):
        if "number 0" in str(body):
            return Fault(status=400, body={"error": {"message": "no"}}, seconds=0.3)
        return think(body)

    with serve_openai(reply) as server:
        server.seconds = 0.2
        config = request_for(server, root, concurrency=3)
        with pytest.raises(GenerationError, match="400: no"):
            generate_teacher_rationales(config)
        begun = {prompt for prompt in server.prompts if EXTRACT not in prompt}
        server.reply = think
        assert generate_teacher_rationales(config).num_new == 6 - (len(begun) - 1)
    assert len(begun) > 1


def test_a_slow_server_is_given_up_in_time(root, quick):
    """Without a limit one lost answer would hold the run for ever."""
    with serve_openai(lambda _: Fault(seconds=0.5, body={})) as server:
        config = request_for(server, root, timeout=0.1, retries=0, limit=1)
        with pytest.raises(GenerationError, match="did not answer in time"):
            generate_teacher_rationales(config)


def test_no_more_requests_at_a_time_than_allowed(root):
    """More are refused by servers; fewer would be slow."""
    with serve_openai(think) as server:
        server.seconds = 0.05
        generate_teacher_rationales(request_for(server, root, concurrency=3))
        assert server.most_waiting == 3


def test_a_killed_command_goes_on(root):
    """A real kill -9 in the middle: no row is lost or asked for again, and none is half."""
    arguments = ["rationales", "teacher", str(root), "--model", "big", "--concurrency", "1"]
    with serve_openai(think) as server:
        server.seconds = 0.1
        arguments += ["--url", server.url]
        process = subprocess.Popen(
            [sys.executable, "-c", f"from mmcot_data.cli import main; main({arguments})"],
            stderr=subprocess.DEVNULL,
        )
        while len(server.requests) < 6:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        journal = root / "rationales" / ".teacher.journal.jsonl"
        num_there = len(journal.read_text().splitlines()) - 1
        assert num_there >= 2
        server.seconds = 0.0
        server.requests.clear()
        assert main(arguments) == 0
        assert len(server.requests) == 2 * (6 - num_there)
        killed = pl.read_parquet(root / "rationales" / "teacher.parquet")
        assert main([*arguments, "--producer", "whole"]) == 0
    assert killed.equals(pl.read_parquet(root / "rationales" / "whole.parquet"))


def auto_config(server, root, **values):
    return request_for(
        server,
        root,
        method="auto-cot",
        clusters=ClusterConfig(num_clusters=2, max_words=20),
        **values,
    )


def write_two_topics(root):
    """Two clear clusters, of planets and of frogs; the centre of each is known by hand."""
    texts = ["planet star moon", "planet star sun", "planet star moon sun comet " * 9]
    texts += ["frog pond leaf", "frog pond tree", "frog pond leaf fly"]
    questions = [
        make_question(number, question=text, hint="", choices=("x", "y"), answer=0)
        for number, text in enumerate(texts)
    ]
    questions.append(make_question(6, "test", question="frog pond", hint="", choices=("x", "y")))
    write_questions(root / "questions.parquet", questions)
    return questions


def test_auto_cot_demonstrates_each_cluster_by_a_chain_of_its_own(root):
    """Zhang et al.: nearest to the centre first, short ones only, answer and length checked."""
    questions = write_two_topics(root)
    config = ClusterConfig(num_clusters=2, max_words=20)
    blocks = [question_block(q) for q in questions if q.split == "train"]
    clusters = cluster_texts(blocks, config, 0)
    assert sorted(sorted(place for place, _ in members) for members in clusters) == [
        [0, 1, 2],
        [3, 4, 5],
    ]
    short = [[place for place, _ in members if place != 2] for members in clusters]
    frogs = next(members for members in short if 3 in members)
    planets = next(members for members in short if 0 in members)

    def reply(body):
        prompt = body["messages"][0]["content"]
        if EXTRACT in prompt:
            if prompt.startswith(f"Q: {blocks[frogs[0]]}\n"):
                return "hard to say"  # the nearest frog gives no answer: the next is tried
            return "(A)"
        return "<think>Hm.</think>Because it is so. The answer is (B)."

    with serve_openai(reply) as server:
        request = auto_config(server, root, splits=("train", "test"))
        summary = generate_teacher_rationales(request)
        prompts = list(server.prompts)
        num = len(prompts)
        again = generate_teacher_rationales(request)
        assert again.num_new == 0
        assert len(server.requests) == num
    chosen = {str(frogs[1]), str(planets[0])}
    assert set(summary.demonstration_ids) == set(again.demonstration_ids) == chosen
    table = pl.read_parquet(root / "rationales" / "teacher.demonstrations.parquet")
    assert set(table["question_id"]) == {*chosen, str(frogs[0])}
    assert set(table.filter(pl.col("kept"))["question_id"]) == chosen
    assert set(table["question_id"]) <= {q.question_id for q in questions if q.split == "train"}
    assert read_made_by(summary.path)["demonstration_ids"] == list(summary.demonstration_ids)
    assert (
        read_made_by(root / "rationales" / "teacher.demonstrations.parquet")["settings"][
            "num_clusters"
        ]
        == 2
    )
    rows = {row["question_id"]: row for row in pl.read_parquet(summary.path).to_dicts()}
    shown = "A: Let's think step by step. Because it is so. The answer is (B). The answer is (A)."
    assert rows["6"]["prompt"].count(shown) == 2
    for question_id in chosen:  # the question itself is left out
        assert rows[question_id]["prompt"].count(shown) == 1
        assert rows[question_id]["prompt"].count(blocks[int(question_id)]) == 1


def test_auto_cot_that_finds_nothing_says_so_and_goes_on_where_it_was(root):
    """No demonstrations at all would silently be another method."""
    write_two_topics(root)
    with serve_openai(lambda _: "no idea") as server:
        with pytest.raises(GenerationError, match="none of 2 clusters"):
            generate_teacher_rationales(auto_config(server, root))
        num = len(server.requests)
        assert num == 2 * 5  # all but the question that is too long
        with pytest.raises(GenerationError, match="none of 2 clusters"):
            generate_teacher_rationales(auto_config(server, root))
        assert len(server.requests) == num
        with pytest.raises(DataError, match="7 clusters"):
            generate_teacher_rationales(
                replace(
                    auto_config(server, root),
                    producer="p",
                    clusters=ClusterConfig(num_clusters=7),
                )
            )


def test_clusters_are_ordered_as_brute_force_does():
    """A wrong axis or argmax would take questions far from the centre."""
    points = np.random.default_rng(0).normal(size=(40, 3)) + np.repeat(
        np.eye(3) * 6, [10, 10, 20], 0
    )
    kmeans = cluster.KMeans(3, n_init=10, random_state=0).fit(points)
    found = order_clusters(kmeans.transform(points), kmeans.labels_)
    for center in kmeans.cluster_centers_:
        far = [float(np.sqrt(((point - center) ** 2).sum())) for point in points]
        mine = [
            i
            for i, point in enumerate(points)
            if min(((point - c) ** 2).sum() for c in kmeans.cluster_centers_)
            == ((point - center) ** 2).sum()
        ]
        expected = sorted(mine, key=lambda i: far[i])
        (match,) = [members for members in found if members[0][0] == expected[0]]
        assert [place for place, _ in match] == expected
        np.testing.assert_allclose([d for _, d in match], [far[i] for i in expected])


def test_the_command_tells_how_it_went(root, capsys):
    """Cut rationales and the next step must be seen by whoever runs it."""
    with serve_openai(lambda body: ("(B)" if EXTRACT in str(body) else "cut", "length")) as server:
        given = ["rationales", "teacher", str(root), "--model", "big", "--url", server.url]
        assert main([*given, "--limit", "4"]) == 0
        out, err = capsys.readouterr()
        assert "4 rationales of 4 questions, 4 written now" in out
        assert "50.0% lead to the right answer" in out
        assert "rationales keep" in out.splitlines()[-1]
        assert "4 rationales (100.0%) were CUT OFF at 512 tokens" in err
        assert main([*given, "--limit", "4", "--keep", "correct"]) == 0
        out, err = capsys.readouterr()
        assert "all there already" in out
        assert "2 are kept" in out
        assert "--target-rationales teacher" in out.splitlines()[-1]
        for wrong, said in (
            (["--batch-size", "2"], "--batch-size can't be given with --url"),
            (["--samples", "2"], "temperature 0"),
            (["--clusters", "2"], "only auto-cot"),
            (["--url", "localhost:8000"], "expected one like http"),
        ):
            with pytest.raises(SystemExit) as caught:
                main([*given, *wrong])
            assert caught.value.code == 2
            assert said in capsys.readouterr().err
    assert main([*given, "--producer", "p", "--retries", "0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert json.loads(json.dumps(read_made_by(root / "rationales" / "teacher.parquet")))
