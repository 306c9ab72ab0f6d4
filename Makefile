# make run    a simulated ward of eight patients, for a minute, in the terminal
# make test   the tests             make lint   ruff and mypy
# make clean  the environment and what wards have left in var/; trainings in runs/ stay
# RECORDINGS=folder make test also runs what needs the public recordings; TESTS=tests/stream only some of them.

PYTHON ?= python3
VENV ?= .venv
DURATION ?= 60
TESTS ?=
BIN := $(VENV)/bin

.PHONY: run test lint format clean
.DEFAULT_GOAL := run

run: $(VENV)/.run
	$(BIN)/python run_pipeline.py run --beds 8 --duration $(DURATION)

test: $(VENV)/.test
	$(BIN)/python -m pytest -q $(TESTS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) var build *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is wanted, this is %d.%d; make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV), then compiling: a few minutes, this once"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dashboard]'
	$(BIN)/python -m stream.warm # compiles the kernels, once
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test,lint]'
	@touch $@
