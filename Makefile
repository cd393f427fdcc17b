# RentStream. `make` lists the targets. All dependencies are installed into .venv, from the lock files.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet --no-input
PYTHON ?= python3
ARGS ?=

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run test check bench chaos histories avsc docs lock fmt clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is passed to the program behind run, test, bench, chaos and lock'

run: $(VENV)/run.stamp ## start everything on this machine, with stand-ins of Buildium and RentSync; Ctrl-C stops it
	@exec $(PY) .ci/foreground.py $(PY) -m streams.cli up --demo $(ARGS)

test: $(VENV)/dev.stamp ## run all tests, including those on a real broker
	@exec $(PY) -m pytest $(ARGS)

check: $(VENV)/dev.stamp ## check format, lint, types, import rules and generated files
	@$(PY) -m ruff format --check --quiet . || { echo 'check: some files are not formatted; run `make fmt`' >&2; exit 1; }
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --strict --no-error-summary
	@output=$$($(VENV)/bin/lint-imports --no-logo --no-cache) || { echo "$$output" >&2; exit 1; }
	@$(PY) -m schemas --check || { echo 'check: schemas/avsc is outdated; run `make avsc` and commit the result' >&2; exit 1; }
	@$(PY) .ci/topology.py --check
	@$(PY) .ci/delivery.py --check
	@$(PY) .ci/answers.py --check
	@$(PY) .ci/lock.py --check
	@$(PY) .ci/surroundings.py
	@echo 'check: all checks passed'

bench: $(VENV)/dev.stamp ## run the benchmarks, relative to references of the same run
	@exec $(PY) -m benchmarks $(ARGS)

chaos: $(VENV)/dev.stamp ## kill, freeze and restart workers under load, for longer than in the tests
	@exec $(PY) -m tests.chaos $(ARGS)

histories: $(VENV)/dev.stamp ## check the laws of more seeded schedules, in memory and on a real cluster
	@$(PY) -m tests.chaos.histories --seeds 2000 $(ARGS)
	@$(PY) -m tests.chaos.real_histories --seeds 20 $(ARGS)

avsc: $(VENV)/dev.stamp ## write the Avro schemas of changed records to schemas/avsc
	@$(PY) -m schemas

docs: $(VENV)/dev.stamp ## generate docs/topology.md, docs/delivery.md and the table of answers in docs/operations.md
	@$(PY) .ci/topology.py
	@$(PY) .ci/delivery.py
	@$(PY) .ci/answers.py

lock: $(VENV)/dev.stamp ## generate the lock files; ARGS=--upgrade for the newest versions
	@$(PY) .ci/lock.py $(ARGS)

fmt: $(VENV)/dev.stamp ## format the code, and fix lint errors where possible
	@$(PY) -m ruff check --quiet --fix-only .
	@$(PY) -m ruff format --quiet .

clean: ## remove .venv and caches, but not .rentstream (data of Kafka, keys)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ----------------------------------------------------------------------------------------------------------- install

# If the interpreter of the venv is missing (or a broken link), existing stamps are not valid.
NEW := $(if $(realpath $(PY)),,new)
.PHONY: new
new: ;

$(PY):
	@for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    rm -rf $(VENV); exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo 'RentStream needs Python 3.11 or newer with the venv module, but none is on the PATH.' >&2; \
	echo 'Install it (on Debian and Ubuntu: python3 and python3-venv), or give its path: make PYTHON=/path/to/python3' >&2; \
	exit 1

$(VENV)/run.stamp: $(PY) $(NEW) requirements.lock requirements-build.lock pyproject.toml
	@echo 'Installing RentStream into $(VENV) (takes about a minute) ...'
	@$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(PY) $(NEW) requirements-dev.lock pyproject.toml
	@echo 'Installing RentStream and its development tools into $(VENV) (takes about a minute) ...'
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/run.stamp $@
