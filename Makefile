# What a newcomer needs is `make run` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data/routing
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps

.PHONY: help run test test-clients test-packaging test-lab failures kill-test lint fuzz bench bench-money bench-routing chaos docs lock
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

run: $(VENV)/.run ## set up what is missing and serve; ARGS="--port 9000" passes options
	$(BIN)/sophia serve $(ARGS)

test: $(VENV)/.dev ## set up what is missing and run the tests; ARGS="tests/unit -x"
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-clients: $(VENV)/.dev ## drive real client libraries, Python and Node, and run examples/
	PYTHON=$(BIN)/python tests/clients/run
	PYTHON=$(BIN)/python tests/examples/run

test-packaging: $(VENV)/.dev ## build the wheel, install it outside the checkout and serve from it
	$(BIN)/python -m pytest -m packaging tests/packaging $(ARGS)

test-lab: $(VENV)/.dev ## run the tests of lab/ and bench/ that `make test` leaves out
	$(BIN)/python -m pytest lab/tests $(ARGS)

failures: $(VENV)/.dev ## try each row of the failure table and write its page with the results
	FAILURES=record $(BIN)/python -m pytest -n 0 tests/faults/test_table.py

kill-test: $(VENV)/.dev ## kill processes under load and compare the ledger with the bill (minutes)
	$(BIN)/python -m pytest -n 0 -m kills -s tests/kills $(ARGS)

bench-money: $(VENV)/.dev ## budgets over several processes: overspend, refusals, reservations per second
	$(BIN)/python -m bench.money $(ARGS)

lint: $(VENV)/.dev ## style, types, import directions and plain words
	$(BIN)/ruff check src tests scripts bench lab examples
	$(BIN)/ruff format --check src tests scripts bench lab examples
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_prose.py

fuzz: $(VENV)/.fuzz ## fuzz the readers of foreign bytes; ARGS="--seconds 60 --target stream"
	$(BIN)/python tests/fuzz/fuzz.py $(ARGS)

bench: $(VENV)/.dev ## measure the gateway against nginx and its peers (about 20 minutes)
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.decision

bench-routing: $(VENV)/.dev ## compare routing policies on outcome tables; DATA=folder, ARGS="--sources mix"
	$(BIN)/python -m bench.routing --data $(DATA) $(ARGS)

chaos: $(VENV)/.dev ## play faults of upstreams to Sophia and its peers (about 30 minutes); ARGS="--quick"
	$(BIN)/python -m bench.chaos $(ARGS)

docs: $(VENV)/.dev ## write docs/reference from the code
	$(BIN)/python scripts/build_reference.py

lock: ## pin the dependencies anew, from pyproject.toml
	PYTHON=$(PYTHON) scripts/lock.sh

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Sophia needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# The package is installed as a link to src, built by the pinned backend: no network but for the lock.
$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what requirements.lock names; the first time this takes a minute."
	$(PIP) --require-hashes --requirement requirements.lock
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(PIP) --require-hashes --requirement requirements-dev.lock
	@touch $@

$(VENV)/.fuzz: requirements-fuzz.lock $(VENV)/.dev
	$(PIP) --require-hashes --requirement requirements-fuzz.lock
	@touch $@
