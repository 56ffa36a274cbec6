"""Rules that hold over the whole tree."""

import ast
import pkgutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import mmcot_data
import mmcot_model
import pipelines

ROOT = Path(__file__).parents[1]
PACKAGES = (mmcot_data, mmcot_model, pipelines)
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_complete(name):
    """Would catch a public name that is not exported, or an export that does not exist."""
    path = ROOT / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    exported = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__"
    ]
    if defined:
        assert exported, f"{name} has no __all__"
        assert defined <= set(exported[0])
        assert len(set(exported[0])) == len(exported[0])


def test_the_packages_import_nothing_heavy():
    """Would catch an import that makes `import mmcot_data` take seconds."""
    script = (
        "import sys, mmcot_data, mmcot_model\n"
        "heavy = {'torch', 'transformers', 'prefect', 'PIL', 'polars'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_module_is_too_long():
    for package in PACKAGES:
        for path in Path(package.__path__[0]).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


def test_versions_agree():
    assert version("mmcot") == mmcot_data.__version__
