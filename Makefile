# make setup   a virtual environment with everything (VENV=elsewhere, PYTHON=python3.12, TORCH=torch==2.13.0)
# make demo    the main job on real handwritten digits
# make test    lint, types and tests
# make docs    the documentation as a site: build/docs/index.html
# make stress  what docs/trust.md claims, at full size: under 20 minutes on two cores, and a table of what came out
# make bench   speed, side by side with eager PyTorch and other packages: a table and benchmarks/results/cpu.json
VENV ?= .venv
PYTHON ?= python3
TORCH ?= torch>=2.10
OUT ?= demo
JOBS ?= 2
STRESS_OUT ?= build/stress.json

BIN := $(VENV)/bin
NATIVE := $(shell find csrc -type f 2>/dev/null)
CPP := $(filter %.h %.cuh %.cpp %.cu,$(NATIVE)) $(wildcard tests/native/*)

.PHONY: setup demo test lint types tests stress test-torches docs bench format clean

setup: $(VENV)/.installed

# Written last, so that an interrupted setup starts again and a finished one is not repeated.
$(VENV)/.installed: pyproject.toml setup.py $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "difficulty_prune needs Python 3.10 or newer, but $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=...")'
	@command -v c++ >/dev/null || { echo "difficulty_prune needs a C++ compiler (c++ was not found)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet "$(TORCH)" "setuptools>=77" ninja "pybind11>=2.13" "numpy>=1.26"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[dev]"
	$(BIN)/difficulty-prune doctor
	@touch $@

demo: setup
	$(BIN)/difficulty-prune study --out $(OUT)
	$(BIN)/difficulty-prune study --keep --plant-wrong 0.03 --out $(OUT)/planted
	$(BIN)/difficulty-prune audit $(OUT)/planted --data digits -o $(OUT)/audit.html

test: lint types tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)

types: setup
	$(BIN)/mypy

# Files side by side, each with one thread: what they compute is too small for more.
tests: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# Kills, damaged files, full disks, fuzzing, sanitizers: what takes too long for every run of the tests. STRESS_INPUTS,
# STRESS_STUDIES, STRESS_SAVES make it smaller.
stress: setup
	OMP_NUM_THREADS=1 STRESS_OUT=$(STRESS_OUT) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q -m stress tests/stress

# The suite of one build under several PyTorches: see the script.
test-torches: setup
	.ci/torches

# A warning is an error. The tests build it too, without the network.
docs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html -d build/docs-trees docs build/docs
	@echo "build/docs/index.html"

bench: $(VENV)/.bench
	$(BIN)/python -m pytest benchmarks -q --benchmark-only --benchmark-quiet --benchmark-json=benchmarks/results/cpu.json

# The packages to compare with.
$(VENV)/.bench: pyproject.toml | setup
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[bench]"
	@touch $@

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

clean:
	rm -rf build dist *.egg-info difficulty_prune/*.so
