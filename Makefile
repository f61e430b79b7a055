PYTHON ?= python3
PYTEST_ARGS ?=
PY := .venv/bin/python
DEMO_DATA := data/demo/shapes
DEMO_WORK := work_dirs/demo/rank_detr

# Tests start many processes: compiled modules are kept between them, and each uses one core.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint format lock ops clean

help: ## this list
	@echo "perception: make TARGET"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14
	@echo "Another Python: make PYTHON=python3.12 setup.  Choose tests: make test PYTEST_ARGS='-k rank_detr -x'."

setup: ## create .venv and install the locked packages (instant when nothing changed)
	@PYTHON="$(PYTHON)" sh tools/setup.sh

demo: setup ## train Rank-DETR on built-in data, evaluate it, draw its boxes (about 6 minutes on 2 cores)
	@$(PY) tools/demo.py --data $(DEMO_DATA) --work-dir $(DEMO_WORK)

test: setup ## run the test suite; PYTEST_ARGS='...' passes options on
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

test-fast: setup ## run the tests that take no training and no stock models (two and a half minutes on 2 cores)
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup -m "not slow" $(PYTEST_ARGS)

lint: setup ## check style (ruff), types (pyrefly) and docker/ (hadolint) without changing anything
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyrefly check --output-format min-text --summary=none
	@.venv/bin/hadolint docker/Dockerfile docker/Dockerfile.cpu

format: setup ## rewrite files in the project's style
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lock: setup ## resolve requirements.lock again from pyproject.toml
	@$(PY) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 \
	    --no-header --no-annotate --quiet -o requirements.lock

ops: setup ## build the native operators, for the CPU and where nvcc is found for CUDA (optional; a minute or two)
	@PERCEPTION_OPS=reference $(PY) -m perception.ops.build
	@$(PY) -m perception.ops

clean: ## remove what make created: .venv, caches, demo data and results
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis $(DEMO_DATA) $(DEMO_WORK) perception/ops/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
