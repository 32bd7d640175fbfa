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
BUILD_TOOLS := hatchling editables

