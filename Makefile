# `make help` lists the targets. Everything runs in .venv, which `make install` builds from uv.lock.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# uv from the PATH, else from a small environment of its own.
UV     := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
DEMO   := outputs/demo
GPU    := outputs/gpu
# Processes that share the tests, a file at a time; each takes up to 4 GB.
WORKERS ?= 2

# uv.lock has the wheels of PyPI.
ifdef CPU
$(error CPU=$(CPU): PyPI has no CPU wheels of torch. README.md says how to install the package with those of PyTorch)
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all gpu docs lint format types check build clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.synced  ## build .venv from uv.lock (pip installs uv if it is missing)

demo: install  ## train a detector on real images of blood cells, score it, draw what it finds (about 4 minutes)
	@$(BIN)/python -m ssd_lightning.train experiment=demo hydra.run.dir=$(DEMO) resume=auto
	@$(BIN)/python -m ssd_lightning.evaluate checkpoint=$(DEMO) data=demo split=test \
		output=$(DEMO)/scores.json visualizations=$(DEMO)/visualizations

test: install  ## run the tests (about 5 minutes on two cores, no network)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-all: install  ## run the slow tests too (about 18 minutes on two cores)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m ''

gpu: install  ## test on a CUDA card, and compare with torchvision (6 minutes; docs/performance.md says which data)
	$(BIN)/python benchmarks/gpu.py --out $(GPU)

docs: install  ## build the pages and the API reference into site/; a broken link is an error (no network)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: install  ## check style, and that imports go downwards
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: install  ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## check types
	$(BIN)/mypy

check: lint types  ## check style and types

build: install  ## build the wheel and the source archive into dist/
	$(UV) build

clean:  ## remove the environment, caches and builds, but no data sets and runs
	rm -rf $(VENV) .tools dist build site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.synced: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --compile-bytecode
	@touch $@

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ssd_lightning needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) -V 2>&1). Set PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'
