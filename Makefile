# `make run` and `make test` are all a visitor needs; both set everything up first and are quick to repeat.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := requirements.lock
# A folder of wheels that pip is configured to use serves uv as well.
WHEELS = $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
# Tests that need no more than a thread each: as many workers as cores, at most four.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); [ $$n -gt 4 ] && echo 4 || echo $$n)
PROFILE ?=
ARGS ?=

export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run repro test test-slow check lint types imports dependencies figures fuzz mutants format lock clean

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## .venv with the locked dependencies and this project

$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "error: Python 3.11 is needed and $(PYTHON) is another; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $(LOCK) into $(VENV)"
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; then \
		export UV_LINK_MODE=copy; \
		if [ -n "$(WHEELS)" ]; then export UV_FIND_LINKS="$(WHEELS)"; fi; \
		$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r $(LOCK) && \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . ; \
	else \
		echo "uv cannot be installed here: pip does it, more slowly"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCK) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . ; \
	fi
	@touch $(READY)

run: setup ## The whole pipeline on the default profile (PROFILE=name-or-file, ARGS="-S key=value")
	@$(BIN)/marl run $(if $(PROFILE),--profile $(PROFILE)) $(ARGS)

repro: setup ## The same stages by `dvc repro`, without Prefect
	@$(BIN)/dvc repro

test: setup ## The fast tests
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: setup ## The tests that take more than a few seconds
	@$(BIN)/pytest -q -m slow

check: setup lint types imports ## Style, types and the direction of imports

lint:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types:
	@$(BIN)/mypy

imports:
	@$(BIN)/lint-imports --no-logo

dependencies: setup ## Writes the code that each stage depends on into dvc.yaml
	@$(BIN)/python -m marl_pipeline.pipeline.code_dependencies

format: setup ## Applies the style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: setup ## Resolves requirements.lock again, keeping what still fits
	@$(BIN)/uv pip compile pyproject.toml --group dev --constraint $(LOCK) --python $(BIN)/python \
		$(if $(WHEELS),--find-links $(WHEELS)) --no-header --no-annotate --no-emit-index-url --quiet --output-file $(LOCK).new
	@{ echo "# Versions that work together on Python 3.11, CPU and CUDA alike. Made by \`make lock\` from pyproject.toml."; \
		sed 's/+cpu$$//' $(LOCK).new; } > $(LOCK)
	@rm -f $(LOCK).new

mutants: setup ## Plants small faults one at a time and lists those that no test notices (ARGS="--sample 50 --seed 1")
	@$(BIN)/python -m tools.mutants $(ARGS)

fuzz: setup ## Reads 20,000 files of bars drawn at random; none may be silently wrong (ARGS="--files 2000 --seed 3")
	@$(BIN)/python -m tools.fuzz $(ARGS)

figures: setup ## Makes the figures of README and docs again (ONLY="name ...")
	@$(BIN)/marl figures $(ONLY)

clean: ## Removes what runs left behind; DVC's cache and .venv stay
	@rm -rf .marl/checkpoints .marl/tracking .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
