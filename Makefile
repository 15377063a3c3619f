# `make demo` is the first thing to run; it needs Python 3.11 or later and nothing else.
# .venv holds the package as a user installs it, .venv-dev the checkout itself with the tools of the tests.

SHELL := /bin/sh
SOURCES := $(shell find dm schemas examples -type f ! -name '*.pyc' 2>/dev/null)

# The first interpreter that is new enough and can make an environment; PYTHON=… chooses another.
FIND_PYTHON = for python in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3; do \
	  if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'make: no Python 3.11 or later with venv found' >&2; \
	  echo 'hint: install python3 and python3-venv, or say PYTHON=/path/to/python' >&2; exit 1; \
	fi
PIP_INSTALL = -m pip install -qq --disable-pip-version-check

.PHONY: help demo install test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo         real data through every step, in a folder of its own'
	@echo 'make test         ruff, mypy, the import contracts and the tests'
	@echo 'make lint         the first three of these'
	@echo 'make bench        every row of benchmarks/; ROW=NAME for one (python -m benchmarks --list)'
	@echo 'make clean        removes the environments and everything that was built'

demo: .venv/installed
	@.venv/bin/dm demo

install: .venv/installed

.venv/installed: pyproject.toml $(SOURCES)
	@$(FIND_PYTHON); \
	if [ ! -x .venv/bin/python ]; then "$$python" -m venv --clear .venv; fi
	@.venv/bin/python $(PIP_INSTALL) .
	@touch $@

.venv-dev/installed: pyproject.toml
	@$(FIND_PYTHON); \
	if [ ! -x .venv-dev/bin/python ]; then "$$python" -m venv --clear .venv-dev; fi
	@.venv-dev/bin/python $(PIP_INSTALL) --editable '.[test,dev]'
	@touch $@

lint: .venv-dev/installed
	.venv-dev/bin/ruff check .
	.venv-dev/bin/mypy
	.venv-dev/bin/lint-imports --no-logo

test: lint
	.venv-dev/bin/python -m pytest -n auto --import-mode=importlib $(PYTEST_ARGS)

# The bench runs with the tests' tools and measures the package as a user has it.
bench: .venv/installed .venv-dev/installed
	@.venv-dev/bin/python -m benchmarks --dm .venv/bin/dm $(ROW)

clean:
	rm -rf .venv .venv-dev build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
