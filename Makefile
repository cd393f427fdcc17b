# RentStream. `make` alone says what there is. Everything that is installed goes into .venv, from the lock files.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet --no-input
PYTHON ?= python3
ARGS ?=

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run test check bench chaos avsc docs lock fmt clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is handed on to the program behind run, test, bench and chaos'

run: $(VENV)/run.stamp ## everything on this machine, with stand-ins of Buildium and RentSync; Ctrl-C ends it
	@exec $(PY) .ci/foreground.py $(PY) -m streams.cli up --demo $(ARGS)

test: $(VENV)/dev.stamp ## every test, those on a real broker included
	@exec $(PY) -m pytest $(ARGS)

check: $(VENV)/dev.stamp ## format, lint, types, import rules, and that generated files are current
	@$(PY) -m ruff format --check --quiet . || { echo 'check: not formatted; run `make fmt`' >&2; exit 1; }
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --strict --no-error-summary
	@said=$$($(VENV)/bin/lint-imports --no-logo --no-cache) || { echo "$$said" >&2; exit 1; }
	@$(PY) -m schemas --check || { echo 'check: run `make avsc` and commit what it wrote' >&2; exit 1; }
	@$(PY) .ci/topology.py --check
	@$(PY) .ci/delivery.py --check
	@$(PY) .ci/lock.py --check
	@$(PY) .ci/surroundings.py
	@echo 'check: all is well'

bench: $(VENV)/dev.stamp ## how fast it is, as ratios to a reference in the same run
	@exec $(PY) -m benchmarks $(ARGS)

chaos: $(VENV)/dev.stamp ## workers killed, frozen and restarted under load, for longer than in the tests
	@exec $(PY) -m tests.chaos $(ARGS)

avsc: $(VENV)/dev.stamp ## commits to schemas/avsc what the records have become
	@$(PY) -m schemas

docs: $(VENV)/dev.stamp ## writes docs/topology.md and docs/delivery.md from the topology and the states of a delivery
	@$(PY) .ci/topology.py
	@$(PY) .ci/delivery.py

lock: $(VENV)/dev.stamp ## remakes the lock files; ARGS=--upgrade for the newest versions
	@$(PY) .ci/lock.py $(ARGS)

fmt: $(VENV)/dev.stamp ## formats, and mends what the linter can
	@$(PY) -m ruff check --quiet --fix-only .
	@$(PY) -m ruff format --quiet .

clean: ## removes .venv and caches; .rentstream (Kafka's data, keys) stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ----------------------------------------------------------------------------------------------------------- install

# Where the venv's interpreter is not there (or is a link to one that is gone), stamps of former days prove nothing.
NEW := $(if $(realpath $(PY)),,new)
.PHONY: new
new: ;

$(PY):
	@for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    rm -rf $(VENV); exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo 'RentStream needs Python 3.11 or newer with its venv module, and found none on the PATH.' >&2; \
	echo 'Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3' >&2; \
	exit 1

$(VENV)/run.stamp: $(PY) $(NEW) requirements.lock requirements-build.lock pyproject.toml
	@echo 'Installing what RentStream needs into $(VENV) (the first time takes about a minute) ...'
	@$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(PY) $(NEW) requirements-dev.lock pyproject.toml
	@echo 'Installing what RentStream and its tests need into $(VENV) (the first time takes about a minute) ...'
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/run.stamp $@
