# make quickstart   train a binary network on the digits that ship with the package
# make test         run the tests
# make test-lowest  the quick tests with the lowest versions that pyproject.toml allows
# make lint         formatting, lint and types
# make docs         build the documentation into site/
# Each makes its own .venv first, from nothing but Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST_ARGS ?= -n 2
# Where quickstart leaves its result; the same command resumes what stands there.
WORKDIR ?= runs/quickstart

.PHONY: quickstart test test-lowest lint docs
.DELETE_ON_ERROR:

quickstart: $(VENV)/.experiments
	$(BIN)/python -m experiments.main \
		--config=experiments/configs/quickstart.py --workdir=$(WORKDIR)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

LOWEST = .venv-lowest
LOWEST_TESTS = tests/estimators/test_adaste.py tests/optim/test_adaste.py tests/nn \
	tests/test_train.py tests/test_sharding.py tests/test_summary.py \
	tests/export/test_file.py tests/export/test_program.py \
	tests/experiments/test_checks.py tests/experiments/test_data.py \
	tests/experiments/test_data_source.py tests/experiments/test_data_stream.py

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -m "not slow" $(PYTEST_ARGS) $(LOWEST_TESTS)

# uv chooses the lowest version of each direct dependency, which pip cannot.
$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST) $(LOWEST)-uv
	$(LOWEST)-uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)-uv/bin/uv pip install --quiet --python $(LOWEST)/bin/python \
		--resolution lowest-direct --editable ".[test]"
	@touch $@

lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	JAX_PLATFORMS=cpu NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# A stamp for each extra: $(VENV)/.test is "pip install -e .[test]".
$(VENV)/.%: pyproject.toml setup.cfg | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adaste_jax needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
