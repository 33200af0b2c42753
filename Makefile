# Everything a contributor needs: `make test` sets up the environment it uses and runs all checks.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Most of the slow tests wait for other processes, so two workers are worth it on two cores, and on one.
WORKERS ?= 2

.PHONY: test lint types unit services demo bench docs changelog clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable . --group test --group lint --group docs
	touch $@

test: lint types unit  ## lint, strict types, and every test

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Files in the order of their folders: the unit tests, the shortest, leave no worker alone with a long one at the end.
# A test that fails must fail by itself, too: see the second line's file.
unit: $(STAMP) services
	$(BIN)/python -m pytest --cache-clear --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    || $(BIN)/python tests/rerun_failed.py $$?

# Servers that some tests start for themselves. Where they cannot be installed, those tests are skipped and say so.
services:
	@sh tests/services.sh

demo: $(STAMP)  ## the layered pipeline over recorded tool calls
	$(BIN)/cpex run examples/layered/events.jsonl --config examples/layered/plugins.yaml --out /dev/null

bench: $(STAMP)  ## ratios against the bare floor and the published package
	$(BIN)/python -m benchmarks

docs: $(STAMP)  ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html; for its search: $(BIN)/python -m http.server --directory site"

changelog: $(STAMP)  ## move the fragments into CHANGELOG.md: make changelog VERSION=1.2.3
	$(BIN)/python docs_src/changelog.py $(VERSION)

clean:
	rm -rf site $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
