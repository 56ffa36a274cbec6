# Everything runs in .venv, which each target makes first from requirements.lock.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow check format bench lock help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

demo: .venv/.ready  ## the whole way on the drawn sample: flows, shards, training, report (about ten minutes)
	$(BIN)/python -m pipelines.demo

test: .venv/.ready  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/.ready  ## run the tests that take minutes: the demo shortened, kills, compiled models
	$(BIN)/python -m pytest -m slow --timeout 600

check: .venv/.ready  ## lint, types, architecture, dependencies, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/codespell .

format: .venv/.ready  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.ready  ## print the benchmark tables
	$(BIN)/python -m benchmarks

lock: .venv/.ready  ## refresh requirements.lock
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--no-header --no-annotate -q -o requirements.lock

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@
