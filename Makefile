# Two commands: `make demo` shows what the library does, `make test` proves it.
# Each sets up what it needs in .venv (and .venv-oldest) and finds it there the next time.

PYTHON ?= python3
BACKEND = $(or $(KERAS_BACKEND),tensorflow)
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

NEWEST := .venv
OLDEST := .venv-oldest

# Two test processes on two cores: a second thread in each makes torch wait for itself.
export OMP_NUM_THREADS ?= 1
BUILD_TOOLS := hatchling editables

