# Two commands: `make demo` shows what the library does, `make test` proves it.
# Each sets up what it needs in .venv (and .venv-oldest) and finds it there the next time.

PYTHON ?= python3
BACKEND = $(or $(KERAS_BACKEND),tensorflow)
BACKENDS := tensorflow jax torch
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

NEWEST := .venv
OLDEST := .venv-oldest
BUILD_TOOLS := hatchling editables

# Two test processes on two cores: a second thread in each makes torch wait for itself.
export OMP_NUM_THREADS ?= 1

# Python compiles what is imported, when it is, and keeps it: `pip install` would compile all of
# the frameworks, which takes a quarter of its time.
unexport PYTHONDONTWRITEBYTECODE

# $(call install,ENVIRONMENT,ARGUMENTS OF PIP,WHAT THIS IS): with the versions of requirements/.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "keras_clip needs Python 3.11 or newer; say: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
@echo "Installing $(3) into $(1): once, for a few minutes ..."
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(2)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check \
  --no-build-isolation --no-deps --editable .
endef

# $(call test_on_all_backends,ENVIRONMENT,WHICH KERAS,TESTS,MARKERS ON THE FIRST,ON THE OTHERS):
# what is the same on every backend runs on the first of them. Files stay whole, as the tests of
# some share what a child process found; tests/conftest.py says which go first.
define test_on_all_backends
@for backend in $(BACKENDS); do \
  echo "== tests on $$backend, $(2) Keras"; \
  KERAS_BACKEND=$$backend $(1)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q $(or $(ARGS),$(3)) \
    -m "$$(test $$backend = $(firstword $(BACKENDS)) && echo "$(4)" || echo "$(5)")"; \
done
endef

.PHONY: help demo test environments lint types docs test-newest test-oldest endurance matrix clean

help:
	@echo "make demo   train a network that fails without clipping (ARGS='--help' for options)"
	@echo "make test   run all checks and tests on TensorFlow, JAX and torch"
	@echo "make matrix try all strategies and precisions, and write the table of them in docs/"
	@echo "make docs   build the documentation into site/"
	@echo "make clean  remove the environments"

# TensorFlow reads these when it is imported, and would log to the terminal otherwise. oneDNN also
# changes the last bits of results on some processors.
QUIET := TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0

demo: $(NEWEST)/.demo-$(BACKEND)
	@$(QUIET) KERAS_BACKEND=$(BACKEND) $(NEWEST)/bin/python -m keras_clip.demo $(ARGS)

test: environments lint types docs test-newest test-oldest
	@echo "All passed: style, types, documentation, and the tests on $(BACKENDS)" \
	  "with the newest and the oldest Keras."

# Both at once: a download and the unpacking of another hardly disturb each other.
environments:
	@$(MAKE) --no-print-directory --jobs 2 $(NEWEST)/.tests $(OLDEST)/.tests

lint: $(NEWEST)/.tests
	@echo "== style"
	@$(NEWEST)/bin/ruff check .
	@$(NEWEST)/bin/ruff format --check .

types: $(NEWEST)/.tests
	@echo "== types"
	@$(NEWEST)/bin/mypy

# Any warning is an error: a link to nowhere, an argument that is described but does not exist.
# Not with --quiet, which hides warnings from --strict as well.
docs: $(NEWEST)/.tests
	@echo "== documentation"
	@NO_MKDOCS_2_WARNING=1 $(NEWEST)/bin/mkdocs build --strict

USUAL := not matrix and not endurance
test-newest: $(NEWEST)/.tests
	$(call test_on_all_backends,$(NEWEST),newest,,$(USUAL),$(USUAL) and not any_backend)

# What differs between Keras versions is the seam and what layers are: no arithmetic there, each
# law on a few optimizers, and of several devices what counts micro-batches as Keras does.
AT_THE_SEAM := tests/seam tests/laws tests/contract tests/test_units.py tests/test_skip_above.py \
  tests/test_nonfinite.py tests/test_sparse_gradients.py \
  tests/distribution/test_mirrored_accumulation.py
LEAN := not exhaustive and $(USUAL)
test-oldest: $(OLDEST)/.tests
	$(call test_on_all_backends,$(OLDEST),oldest,$(AT_THE_SEAM),$(LEAN),$(LEAN) and not any_backend)

# Longer than anybody waits for in `make test`: 20 kills on each backend that has such a test.
endurance: $(NEWEST)/.tests
	@for backend in $(BACKENDS); do \
	  KERAS_CLIP_KILLS=20 KERAS_BACKEND=$$backend $(NEWEST)/bin/python -m pytest -q \
	    tests -m endurance; \
	done

matrix: $(NEWEST)/.tests
	@for backend in $(BACKENDS); do \
	  echo "== matrix on $$backend"; \
	  KERAS_BACKEND=$$backend $(NEWEST)/bin/python -m pytest tests/matrix -q -m matrix $(ARGS) \
	    --write-matrix benchmarks/results/training_matrix.json; \
	done
	@$(NEWEST)/bin/python -m benchmarks.write_tables

clean:
	rm -rf $(NEWEST) $(OLDEST) site

# The tests' environment has all that the demo needs.
tensorflow_package := $(if $(filter Linux,$(shell uname -s)),tensorflow-cpu,tensorflow)
jax_package := jax
torch_package := torch
DEMO_PACKAGES = --constraint requirements/newest.txt keras matplotlib scikit-learn $(BUILD_TOOLS)

$(NEWEST)/.demo-%: requirements/newest.txt pyproject.toml
	$(if $(wildcard $(NEWEST)/.tests),,$(call install,$(NEWEST),$(DEMO_PACKAGES) $($*_package),Keras on $*))
	@touch $@

$(NEWEST)/.tests: requirements/newest.txt pyproject.toml
	$(call install,$(NEWEST),--requirement requirements/newest.txt,what the tests need)
	@touch $@

$(OLDEST)/.tests: requirements/oldest.txt pyproject.toml
	$(call install,$(OLDEST),--requirement requirements/oldest.txt,the oldest supported Keras)
	@touch $@
