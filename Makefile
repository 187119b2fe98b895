# Two commands for a newcomer: `make quickstart` and `make test`. Each sets up `.venv` where it is missing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# a process a core, each on one thread
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadgroup
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup quickstart lint test test-all test-scale test-gpu mutants clean

help:
	@echo "make quickstart   set up, then train fem and softmax on fashion-mnist and show the board (under 10 minutes)"
	@echo "make test         set up, lint, type check, fast tests (tests under 5 minutes)"
	@echo "make test-all     the same with the slow tests"
	@echo "make test-scale   several processes, Ray and a PostgreSQL server, which it needs"
	@echo "make test-gpu     everything that runs on a GPU: kernels, mixers, a run of each domain, speed; needs a GPU"
	@echo "make mutants      plant the catalogue of defects one at a time and count how many the tests catch (hours)"
	@echo "make setup        the virtual environment only"

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not on the PATH; give another with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

setup: $(STAMP)

quickstart: $(STAMP)
	$(BIN)/suite run --task fashion-mnist --mixer softmax
	$(BIN)/suite run --task fashion-mnist --mixer fem
	@echo
	@echo "The same runs in the browser: $(BIN)/suite ui --task fashion-mnist"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) -m "not slow and not scale and not gpu"

test-all: lint
	$(PYTEST) -m "not scale and not gpu"

# needs Ray and the programs of a PostgreSQL server (initdb, pg_ctl), and fails without them
test-scale: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,scale]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -m scale

# fails in one line without a GPU; docs/gpu.md explains the output. Speed is measured only where everything passed
test-gpu: $(STAMP)
	@$(BIN)/python -m tests.gpu.require
	SUITE_TRITON_KERNELS=on $(BIN)/pytest -m gpu tests/gpu
	SUITE_TRITON_KERNELS=on $(BIN)/suite bench kernels --device cuda --out gpu-speed

# MUTANTS: options of the tool, such as MUTANTS="--only budget --jobs 2"
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(MUTANTS)

clean:
	rm -rf $(VENV) build *.egg-info
