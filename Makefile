# Every verb of the project. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)

# Nothing here asks a hub or sends usage figures. HF_HUB_OFFLINE=0 in front of a command lets hf:// sources through.
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export DO_NOT_TRACK ?= true
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export MLFLOW_DISABLE_TELEMETRY ?= true
export DVC_NO_ANALYTICS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-all test slow bench-train lint ui up down clean lock

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 12

setup: $(STAMP)  ## install everything into .venv (done by itself when missing or stale)

# The same two install lines stand in the Dockerfile; a test compares them. Bytecode of 2.5 GB, most of which is never
# imported, took more than a minute: Python writes it where it imports. (PIP_NO_COMPILE=1 means the contrary to pip.)
$(STAMP): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (2.5 GB with a CPU build of torch, some 5 more with the default one; minutes the first time)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/.installed-*
	touch $@

demo: $(STAMP)  ## the main job on real input: movie-sentiment, two versions, promotion, rollback, an answer
	$(BIN)/preface demo movie-sentiment

demo-all: $(STAMP)  ## the same for all three tasks
	$(BIN)/preface demo movie-sentiment news-topic paper-outcome

test: $(STAMP)  ## lint, types, unit and flow tiers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

slow: $(STAMP)  ## the nightly tier (two to three hours on two cores): the pretrained model, and the full counts of property tests and kills
	$(BIN)/preface prepare
	$(BIN)/python -m pytest -m slow

bench-train: $(STAMP)  ## training beside PEFT, adapters side by side (about 15 minutes); one piece: python -m benchmarks.train --arm prefix:20
	$(BIN)/preface prepare movie-sentiment
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.together

lint: $(STAMP)  ## formatter, linter, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(STAMP)  ## the MLflow page (port 5000) and the Prefect page (port 4200) on the embedded stores, until Ctrl-C
	$(BIN)/python -m flows.local_stack.ui

up: $(STAMP)  ## schedules, worker and both pages in the background
	$(BIN)/python -m flows.local_stack.up up

down: $(STAMP)  ## stop what `make up` started, and nothing else
	$(BIN)/python -m flows.local_stack.up down

lock: $(STAMP)  ## write requirements.lock from what .venv holds
	$(BIN)/python -m cli.lock

clean:  ## remove what was made: the virtual environment, stores, bases, data, caches
	rm -rf $(VENV) .preface bases data/raw data/prepared .dvc/cache .dvc/tmp build/lib build/bdist.* *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
