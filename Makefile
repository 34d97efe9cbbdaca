# Two commands: `make demo` shows the whole line at work, `make test` proves that it works.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev

.PHONY: help demo test test-suites lint types suite clean

help:
	@echo "make demo   install into $(VENV), then learn, improve, distill, export and run a policy (about 10 minutes)"
	@echo "make test   install into $(VENV), then lint, types and tests (about 15 minutes)"
	@echo "make test-suites  install the suites of environments into $(VENV) too, and test their adapters"
	@echo "make clean  remove $(VENV) and what the demo wrote"

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON). On Debian: apt-get install python3.11 python3.11-venv, or make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: give a newer one, make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: the venv module of $(PYTHON). On Debian: apt-get install python3.11-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(DEMO) $(DEV): $(VENV)/bin/pip pyproject.toml constraints.txt
	@echo "== installing into $(VENV)"
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt $(TORCH)
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

$(DEMO): EXTRA := export
$(DEV): EXTRA := dev

demo: $(DEMO)
	@echo "== demo: one maze from demonstrations to a one-step policy in a control loop"
	@$(BIN)/noisepilot demo --out .demo

test: lint types suite

lint: $(DEV)
	@echo "== ruff"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(DEV)
	@echo "== pyright"
	@PATH=$(abspath $(BIN)):$$PATH $(BIN)/pyright --pythonpath $(BIN)/python

suite: $(DEV)
	@echo "== pytest"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest

SUITES ?= robotics pusht metaworld ogbench aloha robosuite libero
# LIBERO's own virtual environment, with its meshes and textures.
export NOISEPILOT_LIBERO ?= $(abspath $(VENV))/libero

test-suites: $(DEV)
	@echo "== installing $(SUITES)"
	@for suite in $(SUITES); do PIP_CONSTRAINT=constraints.txt $(BIN)/noisepilot envs install $$suite || exit 1; done
	@echo "== pytest tests/suites"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/suites

clean:
	rm -rf $(VENV) .demo
