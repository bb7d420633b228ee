# Two commands are enough: `make run` and `make test`. Both set up everything that they need.
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONSAFEPATH # with it, `python -m pipeline` does not find the project
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help run test test-docs test-faults lint benchmark gpu-check clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

run: .venv/installed ## set everything up, train and evaluate, print the test accuracy; RECIPE=mnist_quick: by a recipe
	@$(BIN)/python -m pipeline $(if $(RECIPE),recipe '$(RECIPE)',run)

test: .venv/dev ## set everything up and run the tests
	@$(BIN)/python -m pytest -n auto --dist worksteal

test-docs: .venv/dev ## run the commands of the documents, and other walks of a user, from end to end
	@$(BIN)/python -m pytest -n auto --dist worksteal --long -m walk

test-faults: .venv/dev ## run the long tests of faults (thousands of damaged files, 200 killed runs); takes an hour
	@$(BIN)/python -m pytest --long tests/faults

lint: .venv/dev ## check style (ruff), types (mypy) and imports between modules (import-linter)
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && \
	  $(BIN)/lint-imports --no-cache --no-logo

benchmark: .venv/torch ## measure speed against PyTorch, which this installs; ARGS=--help lists the options
	@$(BIN)/python -m benchmarks $(ARGS)

gpu-check: .venv/dev .venv/torch .venv/cuda data/processed ## on a machine with an NVIDIA GPU: tests on it, then times beside PyTorch
	@$(BIN)/python tests/cnn/device_double.py
	@$(BIN)/python -m pytest --device cuda tests/cnn/test_device.py
	@$(BIN)/python -m benchmarks.gpu
	@CUPY_TF32=1 $(BIN)/python -m benchmarks.gpu
	@$(BIN)/python -m pipeline repeat cifar10 --seeds 2 -S device=cuda -S train.shard_size=500

clean: ## delete .venv and tool caches; data, models, reports and DVC's cache stay
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

# uv installs in a fifth of pip's time. Where it cannot be had, or fails, pip installs. Python compiles what it
# imports and keeps that, unless it is told not to; then everything is compiled now, as pip does.
define install
  $(BIN)/uv pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) --python $(BIN)/python $(1) 2>/dev/null || \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1)
endef

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make $(or $(MAKECMDGOALS),run) PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -m venv .venv || { echo "error: The virtual environment could not be made." \
	  "On Debian and Ubuntu the package python3-venv is needed."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 2>/dev/null || \
	  echo "uv cannot be had here; pip takes about a minute."
	@echo "Installing what the pipeline needs, with versions as in requirements.lock ..."
	@$(call install,-r requirements.lock)
	@touch $@

.venv/dev: .venv/installed requirements-dev.lock
	@echo "Installing what the tests need, with versions as in requirements-dev.lock ..."
	@$(call install,-r requirements.lock -r requirements-dev.lock)
	@touch $@

.venv/cuda: .venv/installed pyproject.toml
	@echo "Installing CuPy into .venv (once) ..."
	@$(call install,--constraint requirements.lock $$( \
	  $(BIN)/python -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["cuda"])'))
	@touch $@

data/processed: .venv/installed
	@$(BIN)/dvc repro preprocess

.venv/torch: .venv/installed pyproject.toml # its version is that of the extra "bench"
	@echo "Installing PyTorch into .venv (once, some minutes) ..."
	@$(call install,--constraint requirements.lock $$( \
	  $(BIN)/python -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"])'))
	@touch $@
