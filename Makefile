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
LOGS := $(NEWEST)/test-logs

# Those that take longest come first, so that all processes end at about the same time.
RUNS_NEWEST := newest-jax newest-tensorflow newest-torch
RUNS_OLDEST := oldest-jax oldest-tensorflow oldest-torch
RUNS := $(RUNS_NEWEST) $(RUNS_OLDEST)

# Test processes at a time. Each holds one backend and one Keras from its first test to its last,
# so that frameworks are imported, and programs compiled, once: that is most of the time.
JOBS ?= 2
# A second thread in each of them makes torch wait for itself.
export OMP_NUM_THREADS ?= 1

# $(call install,ENVIRONMENT,ARGUMENTS OF PIP,WHAT THIS IS): with the versions of requirements/.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "keras_clip needs Python 3.11 or newer; say: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
@echo "Installing $(3) into $(1): once, for a few minutes ..."
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check \
  --no-build-isolation --no-deps --editable .
endef

# $(call tests,NAME...): runs of pytest, each named KERAS-BACKEND, JOBS at a time. What a run prints
# comes in one piece when it ends; all are run to the end, and one that failed fails the whole.
define tests
@mkdir -p $(LOGS)
@printf '%s\n' $(1) | xargs -P $(JOBS) -I NAME $(SHELL) -c \
  '$(MAKE) --no-print-directory run-NAME >$(LOGS)/NAME.log 2>&1 && status=0 || status=1; \
   cat $(LOGS)/NAME.log; exit $$status'
endef

.PHONY: help demo test lint types test-newest test-oldest clean

help:
	@echo "make demo   train a network that fails without clipping (ARGS='--help' for options)"
	@echo "make test   run all checks and tests on TensorFlow, JAX and torch"
	@echo "make clean  remove the environments"

demo: $(NEWEST)/.demo-$(BACKEND)
	@KERAS_BACKEND=$(BACKEND) $(NEWEST)/bin/python -m keras_clip.demo $(ARGS)

test: lint types $(NEWEST)/.tests $(OLDEST)/.tests
	$(call tests,$(RUNS))
	@echo "All passed: style, types, and the tests on $(BACKENDS)" \
	  "with the newest and the oldest Keras."

lint: $(NEWEST)/.tests
	@echo "== style"
	@$(NEWEST)/bin/ruff check .
	@$(NEWEST)/bin/ruff format --check .

types: $(NEWEST)/.tests
	@echo "== types"
	@$(NEWEST)/bin/mypy

test-newest: $(NEWEST)/.tests
	$(call tests,$(RUNS_NEWEST))

test-oldest: $(OLDEST)/.tests
	$(call tests,$(RUNS_OLDEST))

# What is the same on every backend runs on the first of them.
run-newest-%: $(NEWEST)/.tests
	@echo "== tests on $*, newest Keras"
	@KERAS_BACKEND=$* $(NEWEST)/bin/python -m pytest -q \
	  $(if $(filter $(firstword $(BACKENDS)),$*),,-m "not any_backend") $(ARGS)

# Each law there on a few optimizers: what differs between Keras versions is the seam.
run-oldest-%: $(OLDEST)/.tests
	@echo "== tests on $*, oldest Keras"
	@KERAS_BACKEND=$* $(OLDEST)/bin/python -m pytest -q \
	  -m "not exhaustive and not any_backend" $(ARGS)

clean:
	rm -rf $(NEWEST) $(OLDEST)

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
