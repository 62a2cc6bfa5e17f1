# The two commands of the README are `make quickstart` and `make test`; both need only Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# tests run in as many processes as there are cores, a file of them in one, each of which computes in one thread; what
# one of them compiles is there for the others
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --dist=loadfile

.PHONY: quickstart test slow integrations soak lint types docs reference results clean

quickstart: $(VENV)/installed
	$(BIN)/evensphere quickstart

test: $(VENV)/installed-test lint types
	$(PYTEST) --durations=10

slow: $(VENV)/installed-test
	$(PYTEST) -m "slow and not soak" --durations=10

# each integration, in an environment that holds its own package and no other optional one
integrations: $(VENV)/installed-test
	.ci/integrations $(BIN)/python $(VENV)/integrations

soak: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -m soak -s

lint: $(VENV)/installed-test
	$(BIN)/ruff check src tests examples benchmarks docs
	$(BIN)/ruff format --check src tests examples benchmarks docs

types: $(VENV)/installed-test
	$(BIN)/mypy

# the site, in site/; a warning is an error
docs: $(VENV)/installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# docs/reference, from the code
reference: $(VENV)/installed-test
	$(BIN)/python docs/generate.py

# docs/results.md, from what is kept of the runs
results: $(VENV)/installed
	$(BIN)/python -m evensphere.reproduce.publish

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'evensphere needs Python 3.11 or newer')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $(VENV)/installed $@
