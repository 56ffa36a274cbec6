"""docs/operations.md and the files that it shows: they parse, and every option in them exists."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "operations.md"
FILES = CHECKOUT / "examples" / "operations"
UNITS = sorted((FILES / "systemd").glob("*.service"))
SCRIPTS = sorted((FILES / "slurm").glob("*.sbatch"))
TEMPLATE = FILES / "kubernetes" / "base-job-template.json"
SEPARATORS = {"&", "&&", "||", ";", "|", "do", "done", "-c"}

READ_BY_PREFECT = """
import json, sys
from uuid import uuid4
from prefect.cli._app import _app
from prefect.settings import Settings
from prefect.settings.legacy import _get_valid_setting_names

lines, settings = json.load(sys.stdin)
unknown = set(settings) - _get_valid_setting_names(Settings)
found = [f"{name} is no setting" for name in sorted(unknown)]
for words in lines:
    try:
        words = words[1:] if words[0] == "--no-prompt" else words  # of `prefect` itself
        words = [str(uuid4()) if word == "ID" else word for word in words]
        _app.parse_args(words, exit_on_error=False, print_error=False)
    except Exception as error:
        found.append(f"{words}: {error}")
print(json.dumps(found))
"""


def page_lines():
    """Of the code on the page, with continued lines joined; and commands within its sentences."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)
    inline = re.findall(r"`((?:prefect|mmcot-data) [a-z][^`…]* [^`…]+)`", text)
    return "".join(blocks).replace("\\\n", " ").splitlines() + inline


def file_lines():
    """Of the commands in the files."""
    for script in SCRIPTS:
        yield from script.read_text(encoding="utf-8").replace('"$@"', "").splitlines()
    for unit in UNITS:
        yield from re.findall(r"^ExecStart=(.*)$", unit.read_text(encoding="utf-8"), re.M)
    for document in yaml.safe_load_all((FILES / "kubernetes" / "cluster.yaml").read_text()):
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", ()):
            yield shlex.join(container["args"])


def commands(program, lines=None):
    """The arguments of each call of a program."""
    found = []
    for line in [*page_lines(), *file_lines()] if lines is None else lines:
        words = shlex.split(line, comments=True)
        starts = [n for n, word in enumerate(words) if Path(word).name == program]
        for start in starts:
            before = words[start - 1] if start else None
            if before is None or before in (*SEPARATORS, "--") or "=" in before:
                call = words[start + 1 :]
                end = next((n for n, word in enumerate(call) if word in SEPARATORS - {"-c"}), None)
                found.append([word.rstrip(";") for word in call[:end]])
    return found


def test_commands_are_found():
    """Would catch a search that finds nothing, so that the tests below check nothing."""
    assert commands("prefect", ["A=1 prefect x --y; done", "kubectl exec d -- prefect z && q"]) == [
        ["x", "--y"],
        ["z"],
    ]
    assert len(commands("mmcot-data")) >= 3
    assert len(commands("prefect")) >= 20
    assert len(commands("sbatch")) == 2


def test_mmcot_commands_parse():
    """Would catch an option of ours that has another name, or was dropped."""
    from mmcot_data.cli import _parser

    for words in commands("mmcot-data"):
        if words == ["extract"]:  # the arguments of the job script, which the page's sbatch has
            continue
        _parser().parse_args(words)
    jobs = [words for words in commands("sbatch") if any("extract.sbatch" in w for w in words)]
    assert jobs
    for words in jobs:
        place = next(n for n, word in enumerate(words) if word.endswith("extract.sbatch"))
        assert (CHECKOUT / words[place]).is_file()
        arguments = _parser().parse_args(["extract", *words[place + 1 :]])
        assert arguments.encoder


def test_prefect_commands_parse(tmp_path):
    """Would catch options and settings that Prefect does not have."""
    pytest.importorskip("prefect")
    texts = [PAGE.read_text(encoding="utf-8")]
    texts += [
        path.read_text(encoding="utf-8")
        for path in FILES.rglob("*")
        if path.is_file() and path != TEMPLATE  # whose descriptions are Prefect's
    ]
    settings = sorted(
        {
            name
            for text in texts
            for name in re.findall(r"\bPREFECT_[A-Z_]+", text)
            # one that prefect-kubernetes reads
            if not name.startswith("PREFECT_INTEGRATIONS_")
        }
    )
    assert "PREFECT_API_URL" in settings
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_PREFECT],
        input=json.dumps([commands("prefect"), settings]),
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env={"PREFECT_HOME": str(tmp_path), "DO_NOT_TRACK": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_parameters_of_runs_exist():
    """Would catch ``-p`` of a parameter that the flow has not; to import it would take long."""
    module = ast.parse((CHECKOUT / "pipelines" / "extract_features.py").read_text(encoding="utf-8"))
    (flow,) = (
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name == "extract_features"
    )
    known = {argument.arg for argument in flow.args.args}
    runs = [words for words in commands("prefect") if words[:2] == ["deployment", "run"]]
    given = [
        word.partition("=")[0]
        for words in runs
        for option, word in pairwise(words)
        if option == "-p"
    ]
    assert {words[2] for words in runs} == {"extract-features"}
    assert {"runner", "address", "out"} <= set(given) <= known


def test_dask_commands_parse():
    """Would catch an option that Dask does not have."""
    pytest.importorskip("distributed")
    from distributed.cli import dask_scheduler, dask_worker

    programs = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    found = commands("dask")
    assert len(found) == 3
    for name, *words in found:
        programs[name].make_context(f"dask {name}", words, resilient_parsing=False)


def test_ray_commands_parse():
    """Would catch an option that Ray does not have; in a process of its own, for Ray warns."""
    pytest.importorskip("ray")
    code = (
        "import json, sys\nfrom ray.scripts import scripts\n"
        "for name, *words in json.loads(sys.argv[1]):\n"
        "    getattr(scripts, name).make_context(name, words)"
    )
    found = commands("ray")
    assert len(found) == 3
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(found)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_the_units(unit, tmp_path):
    """Would catch a key in the wrong section, or one that systemd does not know."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = Path(sys.executable).with_name("prefect")
    if not program.exists():
        pytest.skip("prefect is not installed")
    text = unit.read_text(encoding="utf-8").replace("/opt/mmcot/.venv/bin/prefect", str(program))
    (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / unit.name],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if unit.stem in line]
    assert not ours


def test_units_of_a_user_lose_what_needs_root():
    """Would catch a hardened key that stays in, which the manager of a user may refuse."""
    (recipe,) = re.findall(r"(sed -e .*?) \\\n    > ~", PAGE.read_text(encoding="utf-8"), re.S)
    for unit in UNITS:
        command = recipe.replace("examples/operations/systemd/$unit.service", str(unit))
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert not re.search("^(User|Protect|Private|Restrict|Capability)", done.stdout, re.M)
        assert "/opt" not in done.stdout
        assert "ExecStart=%h/mmcot/.venv/bin/prefect" in done.stdout
        assert done.stdout.endswith("[Install]\nWantedBy=default.target\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_job_scripts_parse(script):
    """Would catch an error of syntax, and options that sbatch ignores since they come too late."""
    subprocess.run(["bash", "-n", script], check=True)
    lines = script.read_text(encoding="utf-8").splitlines()
    last_option = max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(not line or line.startswith("#") for line in lines[:last_option])


def test_job_template_defines_what_it_uses():
    """Would catch a misspelt variable, which would reach the cluster as text."""
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    variables = template["variables"]["properties"]
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == variables.keys()
    table = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .*? \| (.*?) \|$", PAGE.read_text(), re.M)
    documented = {
        name: default
        for names, defaults in table
        for name, default in zip(
            re.findall(r"`(\w+)`", names), re.findall(r"`(.*?)`", defaults), strict=True
        )
    }
    assert len(documented) >= 8
    assert {name: variables[name]["default"] for name in documented} == documented


def test_cluster_and_template_belong_together():
    """Would catch a claim, a label or an image that nothing else has."""
    documents = list(yaml.safe_load_all((FILES / "kubernetes" / "cluster.yaml").read_text()))
    by_kind = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    variables = json.loads(TEMPLATE.read_text(encoding="utf-8"))["variables"]["properties"]
    assert ("PersistentVolumeClaim", variables["shared_claim"]["default"]) in by_kind
    images = set()
    for (kind, name), document in by_kind.items():
        if kind == "Deployment":
            template = document["spec"]["template"]
            assert document["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
            images |= {container["image"] for container in template["spec"]["containers"]}
            for volume in template["spec"].get("volumes", ()):
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in by_kind, name
    assert images == {variables["image"]["default"]}
    service = by_kind["Service", "mmcot-server"]
    pod = by_kind["Deployment", "mmcot-server"]["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]


def test_the_image_copies_what_is_there():
    """Would catch a file that was renamed, or a package that is left out."""
    text = (FILES / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
    sources = [
        word for line in re.findall(r"^COPY (.*)$", text, re.M) for word in line.split()[:-1]
    ]
    assert all((CHECKOUT / source).exists() for source in sources)
    assert {"mmcot_data", "mmcot_model", "pipelines", "flows.yaml"} <= set(sources)


def test_the_lifecycle_rule_ends_broken_uploads():
    """Would catch a rule that deletes objects."""
    (rule,) = json.loads((FILES / "s3-lifecycle.json").read_text(encoding="utf-8"))["Rules"]
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 1
    assert "Expiration" not in rule


def test_links_and_files_of_the_page_exist():
    """Would catch a file that was moved, a heading that was renamed, and a file nobody mentions."""
    text = PAGE.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (PAGE.parent / path).exists(), target
        assert path or anchor in headings, target
    for path in re.findall(r"\bexamples/operations/[\w./-]*\w", text):
        assert (CHECKOUT / path).exists() or list(CHECKOUT.glob(f"{path}*")), path
    for path in (path for path in FILES.rglob("*") if path.is_file()):
        assert path.name in text or path.suffix == ".service", path
