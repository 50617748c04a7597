# Everything a fresh machine needs is Python 3.11+ and make; the targets set up the rest in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TYPED  := $(wildcard proxy/*/*.pxd)
COMPILED := $(wildcard proxy/*/*.pyx) $(TYPED) $(wildcard $(TYPED:.pxd=.py))
# Tests wait for servers more than they compute, so there are more workers than cores; each has servers of its own.
# What measures CPU, memory, time or the whole machine is marked `@pytest.mark.alone`: no other test runs meanwhile.
# WORKERS=0 is one test after the other, in one process.
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo test lint format bench micro clean test-clients matrix scenarios

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

# Compiled modules lie beside their sources and are what an import finds: a change of these means to build again.
$(VENV)/.ready: pyproject.toml setup.py $(COMPILED)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready   ## the noon import three times: direct, one shared pool, classes; a table and a picture
	$(BIN)/pgheadroom demo

test: $(VENV)/.ready   ## tests against a real PostgreSQL; those of the compiled modules also on their sources
	PGHEADROOM_PLAIN=1 $(PYTEST) -q -m "not once" tests/admission tests/session tests/test_packaging.py
	$(PYTEST) -m "not drivers and not beside"

test-clients: $(VENV)/.ready ## every client driver, in its own language; installs them below tests/clients
	$(BIN)/python -m tests.clients.install
	$(PYTEST) -m drivers tests/clients

lint: $(VENV)/.ready   ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready  ## the bad day: direct, PgBouncer, pgheadroom
	$(BIN)/python -m loadtests.bad_day

micro: $(VENV)/.ready  ## CPU per transaction, result and login, memory per idle client, beside PgBouncer
	$(BIN)/python -m loadtests.micro

matrix: $(VENV)/.ready ## the same beside PgBouncer; writes the table of clients into the README
	-$(BIN)/python -m pytest -q -m "drivers or beside" tests/clients --matrix-out build/clients.json
	$(BIN)/python -m tests.clients.matrix build/clients.json

scenarios: $(VENV)/.ready ## bad days as data, simulated, for real and through PgBouncer; the table goes into the README
	$(BIN)/python -m loadtests.scenarios --readme README.md

clean:           ## remove what the targets made
	rm -rf $(VENV) build proxy/*/*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache
	rm -rf tests/clients/*/.installed tests/clients/node/node_modules tests/clients/node/generated
	rm -rf tests/clients/go/program tests/clients/java/target
