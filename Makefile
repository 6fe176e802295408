# make quickstart   train a binary network on the digits that ship with the package
# make quick        lint, types, and the tests that a change breaks most often
# make test         run the tests, but the slow ones
# make coverage     run all tests, and say which lines of adaste_jax they run
# make test-lowest  the quick tests with the lowest versions that pyproject.toml allows
# make lint         formatting, lint and types
# make docs         build the documentation into site/
# make native       build native/, the package adaste-jax-cpu, and run its tests
# make wheel        build the wheel into dist/, install it alone and use it
# Each makes its own .venv first, from nothing but Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Each worker takes files that lie together, so that what a file shares is made once; the
# one that has finished takes half of what is left to the other.
PYTEST_ARGS ?= -n 2 --dist worksteal
# What `make test` runs; all tests with MARKED=.
MARKED ?= not slow
# Where quickstart leaves its result; the same command resumes what stands there.
WORKDIR ?= runs/quickstart

.PHONY: quickstart quick test coverage test-lowest lint docs native wheel
.DELETE_ON_ERROR:

quickstart: $(VENV)/.experiments
	$(BIN)/python -m experiments.main \
		--config=experiments/configs/quickstart.py --workdir=$(WORKDIR)

# Floors, names, pages; the contract of one estimator; a step; a file there and back.
QUICK_TESTS = tests/test_layering.py tests/test_api.py tests/test_project.py \
	tests/test_docs.py tests/test_first_program.py tests/estimators/test_adaste_golden.py \
	tests/estimators/test_contract.py tests/optim/test_labels.py tests/export/test_keys.py \
	tests/experiments/test_checks.py tests/experiments/test_identity.py

quick: lint
	$(BIN)/python -m pytest -q $(PYTEST_ARGS) $(QUICK_TESTS) -k "not code_of_a_page \
		and (not test_contract or adaste) and (not test_first_program or linen_network)"

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "$(MARKED)" $(PYTEST_ARGS)

# Below this share of lines, in per cent, it fails.
COVERAGE_FLOOR ?= 97

coverage: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov --cov-fail-under=$(COVERAGE_FLOOR)

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

wheel: $(VENV)/bin/python
	$(BIN)/python tests/wheel.py dist

# A stamp for each extra: $(VENV)/.test is "pip install -e .[test]".
$(VENV)/.%: pyproject.toml setup.cfg | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adaste_jax needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# Not in an environment of its own for the build, which would fetch jaxlib twice.
NATIVE = .venv-native
native: $(NATIVE)/.onednn
	$(NATIVE)/bin/pip install --quiet --editable ".[flax,export]"
	$(NATIVE)/bin/pip install --quiet --no-build-isolation "./native[test]"
	$(NATIVE)/bin/python -m pytest -q native/tests

$(NATIVE)/.onednn: native/pyproject.toml
	$(PYTHON) -m venv --clear $(NATIVE)
	$(NATIVE)/bin/pip install --quiet --disable-pip-version-check cmake ninja \
		"setuptools>=77" "scikit-build-core>=0.10" \
		onednn-cpu-gomp==2023.2.0 onednn-devel-cpu-gomp==2023.2.0
	@touch $@
