PYTHON ?= python3
BIN := .venv/bin
# Folds run one to a process; more threads than cores make them slower.
export OMP_NUM_THREADS ?= 1

.PHONY: demo install style quality test test-slow build clean

.venv/base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev: .venv/base
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

install: .venv/dev

demo: .venv/base
	$(BIN)/vidground demo --output demo

style: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: quality
	$(BIN)/pytest -m "not slow and not gpu"

test-slow: .venv/dev
	$(BIN)/pytest -m "slow and not gpu"

build: .venv/dev
	$(BIN)/python -m build

clean:
	rm -rf .venv dist build demo
