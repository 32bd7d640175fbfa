# `make demo` shows the effect of the library, `make test` runs all checks and tests.
# Each target installs its needs into .venv, .venv-oldest or another .venv-* once.

PYTHON ?= python3
BACKEND = $(or $(KERAS_BACKEND),tensorflow)
BACKENDS := tensorflow jax torch
# Runs the tests that are the same on every backend: it compiles nothing, so it is the fastest.
MAIN_BACKEND := torch
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

NEWEST := .venv
OLDEST := .venv-oldest
NIGHTLY := .venv-nightly
RELEASE := .venv-release
WHEEL := .venv-wheel
BUILD_TOOLS := hatchling editables

# Two test processes share two cores: with a second thread each, torch's threads wait for each other.
export OMP_NUM_THREADS ?= 1

# Python compiles a module at its first import. `pip install` would compile all of the frameworks,
# which takes a quarter of its time.
unexport PYTHONDONTWRITEBYTECODE

# $(call install,ENVIRONMENT,ARGUMENTS OF PIP,DESCRIPTION): install the versions of requirements/.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "keras_clip needs Python 3.11 or newer; say: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
@echo "Installing $(3) into $(1): once, for a few minutes ..."
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(2)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check \
  --no-build-isolation --no-deps --editable .
endef

# $(call test_on_all_backends,ENVIRONMENT,WHICH KERAS,TESTS,MARKERS ON THE MAIN BACKEND,ON OTHERS):
# One process runs a whole file, because the tests of some files share the result of a child
# process. tests/conftest.py says which files go first.
define test_on_all_backends
@for backend in $(BACKENDS); do \
  echo "== tests on $$backend, $(2) Keras"; \
  KERAS_BACKEND=$$backend $(1)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q $(or $(ARGS),$(3)) \
    -m "$$(test $$backend = $(MAIN_BACKEND) && echo "$(4)" || echo "$(5)")"; \
done
endef

.PHONY: help demo check test environments lint types docs test-newest test-oldest test-nightly \
  endurance matrix release clean

help:
	@echo "make demo      train a network that fails without clipping (ARGS='--help' for options)"
	@echo "make check     style, types and laws on one backend, in under three minutes"
	@echo "make test      run all checks and tests on TensorFlow, JAX and torch"
	@echo "make endurance run the tests that take longer"
	@echo "make matrix    try all strategies and precisions, and write their table in docs/"
	@echo "make docs      build the documentation into site/"
	@echo "make release   build the packages, and try the wheel in an empty environment"
	@echo "make clean     remove the environments and what was built"

# TensorFlow reads these at import, and would log to the terminal otherwise. oneDNN also changes
# the last bits of results on some processors.
QUIET := TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0

demo: $(NEWEST)/.demo-$(BACKEND)
	@$(QUIET) KERAS_BACKEND=$(BACKEND) $(NEWEST)/bin/python -m keras_clip.demo $(ARGS)

check: lint types
	@echo "== laws on $(BACKEND)"
	@KERAS_BACKEND=$(BACKEND) $(NEWEST)/bin/python -m pytest -n 2 --dist loadfile \
	  --no-loadscope-reorder -q tests/laws -m "$(LEAN) and not any_backend"

test: environments lint types docs test-newest test-oldest
	@echo "All passed: style, types, documentation, and the tests on $(BACKENDS)" \
	  "with the newest and the oldest Keras."

# In parallel: the download of one and the unpacking of the other hardly compete.
environments:
	@$(MAKE) --no-print-directory --jobs 2 $(NEWEST)/.tests $(OLDEST)/.tests

lint: $(NEWEST)/.tests
	@echo "== style"
	@$(NEWEST)/bin/ruff check .
	@$(NEWEST)/bin/ruff format --check .

types: $(NEWEST)/.tests
	@echo "== types"
	@$(NEWEST)/bin/mypy

# Any warning is an error: a broken link, a described argument that does not exist.
# Without --quiet, which would hide warnings from --strict.
docs: $(NEWEST)/.tests
	@echo "== documentation"
	@NO_MKDOCS_2_WARNING=1 $(NEWEST)/bin/mkdocs build --strict

USUAL := not matrix and not endurance
test-newest: $(NEWEST)/.tests
	$(call test_on_all_backends,$(NEWEST),newest,,$(USUAL),$(USUAL) and not any_backend)

# On the oldest Keras, run only the tests that depend on its version: seam, layers, a lean set of
# laws, accumulation on several devices.
AT_THE_SEAM := tests/seam tests/laws tests/contract tests/test_units.py \
  tests/test_sparse_gradients.py tests/distribution/test_mirrored_accumulation.py
LEAN := not exhaustive and $(USUAL)
test-oldest: $(OLDEST)/.tests
	$(call test_on_all_backends,$(OLDEST),oldest,$(AT_THE_SEAM),$(LEAN),$(LEAN) and not any_backend)

# Keras's main branch, with the other versions as for the newest Keras.
test-nightly: $(NIGHTLY)/.tests
	$(call test_on_all_backends,$(NIGHTLY),nightly,,$(USUAL),$(USUAL) and not any_backend)

# Too long for `make test`: 20 kills on each backend that has such a test, recipes with other
# packages, and on all backends the tests that `make test` runs on one.
endurance: $(NEWEST)/.recipes
	@for backend in $(BACKENDS); do \
	  KERAS_CLIP_KILLS=20 KERAS_BACKEND=$$backend $(NEWEST)/bin/python -m pytest -q \
	    tests -m "endurance or (any_backend and not matrix)"; \
	done

matrix: $(NEWEST)/.tests
	@for backend in $(BACKENDS); do \
	  echo "== matrix on $$backend"; \
	  KERAS_BACKEND=$$backend $(NEWEST)/bin/python -m pytest tests/matrix -q -m matrix $(ARGS) \
	    --write-matrix benchmarks/results/training_matrix.json; \
	done
	@$(NEWEST)/bin/python -m benchmarks.write_tables

release: $(RELEASE)/.tools
	@rm -rf dist $(WHEEL)
	@echo "== packages"
	@$(RELEASE)/bin/python -m build
	@$(RELEASE)/bin/python -m twine check --strict dist/*
	@echo "== the README's code, with the wheel in an empty environment, on $(BACKEND)"
	@$(PYTHON) -m venv $(WHEEL)
	@$(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint requirements/newest.txt "$$(echo dist/*.whl)[plot]" $($(BACKEND)_package)
	@$(QUIET) KERAS_BACKEND=$(BACKEND) $(WHEEL)/bin/python -P tests/support/code_blocks.py README.md

clean:
	rm -rf $(NEWEST) $(OLDEST) $(NIGHTLY) $(RELEASE) $(WHEEL) dist site

# The tests' environment includes everything that the demo needs.
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

$(NEWEST)/.recipes: requirements/recipes.txt $(NEWEST)/.tests
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  --no-deps --requirement requirements/recipes.txt
	@touch $@

$(OLDEST)/.tests: requirements/oldest.txt pyproject.toml
	$(call install,$(OLDEST),--requirement requirements/oldest.txt,the oldest supported Keras)
	@touch $@

$(NIGHTLY)/.tests: requirements/newest.txt pyproject.toml
	$(call install,$(NIGHTLY),--requirement requirements/newest.txt,Keras's main branch)
	@$(NIGHTLY)/bin/python -m pip uninstall --quiet --yes keras
	@$(NIGHTLY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --pre --force-reinstall keras-nightly
	@touch $@

$(RELEASE)/.tools: requirements/release.txt
	@test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement requirements/release.txt
	@touch $@
