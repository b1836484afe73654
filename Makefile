# Every target makes .venv first, from pyproject.toml and constraints.txt; nothing else is needed.
# `make demo` installs what the demonstration needs alone; the other targets then add the rest.
# Another interpreter: make test PYTHON=python3.13
# Tests run side by side, on four processors at most: each process takes a gigabyte or two.

PYTHON ?= python3
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
TORCHVISION := .venv-torchvision
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt
RESULTS := experiments/results
BENCHMARKS := app encode duplicates keys memory loader ledger publish reading ray_nodes distributed startup wrapping client_round lightning_callback public_search
# Where the pages link to: the address of the remote, if it has one on the web.
REPOSITORY_URL ?= $(shell git remote get-url origin 2>/dev/null | sed -nE 's,^https://[^/]*@,https://,; s,^(https://|git@)([^/:]+)[/:](.+)$$,https://\2/\3,; s,\.git$$,,; /^https:/p')
export REPOSITORY_URL
TABLES := tables attack_tables reconstruction_tables settings_tables evidence_tables noise_table floor_tables

.DEFAULT_GOAL := help
.PHONY: help demo test slow test-torchvision lint bench tables docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_STAMP) ## Train on plain and on encrypted digits, and compare (5 minutes on 2 cores, at most)
	$(BIN)/instahide demo

test: $(STAMP) ## Run the tests, with coverage
	$(BIN)/python -m pytest $(PARALLEL) --cov

slow: $(STAMP) ## Run the tests that take minutes
	$(BIN)/python -m pytest $(PARALLEL) -m slow

test-torchvision: $(TORCHVISION)/.installed ## Test wrapped loaders beside torchvision and timm (7 GB to install)
	$(TORCHVISION)/bin/python -m pytest tests/torchvision tests/integrations

lint: $(STAMP) ## Check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

bench: SHELL := bash -o pipefail
bench: $(STAMP) ## Run every benchmark and keep its figures in experiments/results
	@set -e; for name in $(BENCHMARKS); do \
		echo "== $$name"; \
		$(BIN)/python -m benchmarks.$$name | tee $(RESULTS)/$$name.log; \
		tail -n 1 $(RESULTS)/$$name.log > $(RESULTS)/$$name.json; rm $(RESULTS)/$$name.log; \
	done

tables: $(STAMP) ## Write what was measured into the README and the pages
	@set -e; for name in $(TABLES); do $(BIN)/python -m experiments.$$name; done

docs: $(STAMP) ## Build the site into site/
	$(BIN)/mkdocs build --strict

clean: ## Remove what the tools leave behind; .venv and runs/ stay
	rm -rf build dist site htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache \
		.ruff_cache .import_linter_cache
	find src tests benchmarks examples experiments -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): $(DEMO_STAMP)
	$(INSTALL) -e '.[demo,dev,docs]'
	@touch $@

$(DEMO_STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "instahide needs Python 3.11 or later; $(PYTHON) is not." >&2; \
		echo "Name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[demo]'
	@touch $@

# torchvision does not import beside the CPU build of torch that the other tests use.
$(TORCHVISION)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TORCHVISION)
	$(TORCHVISION)/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1 timm pytest \
		-e '.[data,vision,dp,ray,integrations]'
	@touch $@
