# Five targets: demo, test, test-long, check, bench. Each first sets up .venv from the lock files,
# which needs Python 3.11 or later and a package index, and nothing else.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# Files in the order of their names: by the number of their tests, the long ones would come last.
PYTEST := $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Tests kill processes and not machines: where memory has room for their lakes, no sync is waited for.
ROOM_KIB := 4000000
IN_MEMORY := $(shell test "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)" -ge $(ROOM_KIB) \
	2>/dev/null && echo TMPDIR=/dev/shm)

.PHONY: demo test test-long check bench

demo: $(READY)  ## the whole way on real flights; DEMO="--fast --json" passes options on
	$(VENV)/bin/instep demo $(DEMO)

test: $(READY)  ## all tests but the long ones
	$(IN_MEMORY) $(PYTEST) -m "not long" $(TEST)

test-long: $(READY)  ## the long ones as well
	$(PYTEST) $(TEST)

check: $(READY)  ## style, types, layers, documentation
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest tests/test_docs.py tests/test_house.py

bench: $(READY)  ## figures as JSON lines; BENCH=name runs those that begin with it
	$(PY) -m bench $(BENCH)

$(READY): build.lock requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python %d.%d is too old: expected 3.11 or later. Set PYTHON=python3.11." \
		% sys.version_info[:2] or 0)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); this takes a minute or two the first time."
	@$(PIP) --require-hashes --requirement build.lock
	@$(PIP) --require-hashes --no-build-isolation --requirement requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
