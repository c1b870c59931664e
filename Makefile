# `make demo` and `make test` set up everything they need by themselves.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo smoke test test-all test-minimum test-qgis lint bench clean help setup

help:             ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: setup       ## the demo region: maps, tables, GeoPackage, report in out/demo
	$(BIN)/qala run demo --out out/demo

smoke: setup      ## the same cut small, in under a minute
	$(BIN)/qala run smoke --out out/smoke

test: setup       ## the tests, without those marked slow (they are counted at the end)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST)

test-all: setup   ## every test
	$(BIN)/python -m pytest $(PYTEST)

test-minimum:     ## the tests with the oldest versions that pyproject.toml admits
	$(PYTHON) -m venv .venv-minimum
	.venv-minimum/bin/pip install -q --disable-pip-version-check -r tests/minimum.txt
	.venv-minimum/bin/pip install -q --disable-pip-version-check -e '.[test]'
	.venv-minimum/bin/python -m pytest -m "not slow" $(PYTEST)

test-qgis: setup  ## the tests inside QGIS, which is installed if absent
	bash tests/qgis/run.sh $(BIN)/python

lint: setup       ## ruff and mypy --strict
	$(BIN)/pip install -q -e '.[dev]'
	$(BIN)/ruff check pipeline tests benchmarks data && $(BIN)/ruff format --check pipeline tests benchmarks data
	$(BIN)/mypy

bench: setup      ## side-by-side measurements of the cells (see benchmarks/)
	$(BIN)/python benchmarks/cells.py

setup: $(STAMP)

# A virtual environment of its own; Debian keeps venv in a package apart.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) found; qala needs Python 3.11 or newer: apt-get install python3"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  echo "installing python3-venv"; \
	  sudo=$$( [ $$(id -u) = 0 ] || echo sudo ); \
	  $$sudo apt-get update -qq && $$sudo apt-get install -y -qq python3-venv && \
	  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $(STAMP)

clean:            ## remove the environment and outputs
	rm -rf $(VENV) .venv-minimum out build dist
