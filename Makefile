# Every target makes .venv first, from pyproject.toml and constraints.txt; nothing else is needed.
# `make demo` installs what the demonstration needs alone; the other targets then add the rest.
# Another interpreter: make test PYTHON=python3.13 VENV=.venv-3.13
# Tests run side by side, on four processors at most: each process takes a gigabyte or two.

PYTHON ?= python3
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
TORCHVISION := .venv-torchvision
LOWEST := .venv-lowest
HASHED := .venv-hashed
PYTHONS := 3.11 3.12 3.13
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt
# requirements.lock is for PyTorch's CPU build. Where it lies in a folder: make lock TORCH='--find-links FOLDER'
TORCH := --torch-backend cpu
COMPILE := uv pip compile pyproject.toml --quiet --no-annotate --custom-compile-command 'make lock' \
	--python-version 3.11.7 --python-platform x86_64-manylinux_2_28
# Older releases of pip, such as 23.2, want a pin of `package` beside one of `package[extra]`.
define WITHOUT_EXTRAS
/^[^ ]/ { printf "%s", held; held = ""; bare = $$0; extra = sub(/\[.*\]/, "", bare); if (extra) held = bare "\n" }
/^ / && extra { held = held $$0 "\n" }
{ print }
END { printf "%s", held }
endef
export WITHOUT_EXTRAS
# The lower bounds of flower and export are the releases that all other tests use.
LOWEST_EXTRAS := accounting advise app demo dp huggingface integrations medical ray s3 test
# Without the tests of pages, pictures, notebooks, styles and layers, which need other tools.
LOWEST_TESTS := tests/app tests/attacks tests/audit tests/cli tests/data tests/encodings tests/encryption \
	tests/fuzz tests/integrations tests/training tests/utils
RESULTS := experiments/results
BENCHMARKS := app encode duplicates keys memory loader ledger publish reading ray_nodes distributed startup wrapping client_round lightning_callback public_search
# Where the pages link to: the address of the remote, if it has one on the web.
REPOSITORY_URL ?= $(shell git remote get-url origin 2>/dev/null | sed -nE 's,^https://[^/]*@,https://,; s,^(https://|git@)([^/:]+)[/:](.+)$$,https://\2/\3,; s,\.git$$,,; /^https:/p')
export REPOSITORY_URL
TABLES := tables attack_tables reconstruction_tables settings_tables evidence_tables noise_table floor_tables encoders_table advise_table

.DEFAULT_GOAL := help
.PHONY: help demo test slow test-torchvision test-pythons test-lowest test-hashes lock lint bench tables docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_STAMP) ## Train on plain and on encrypted digits, and compare (5 to 10 minutes on 2 cores)
	$(BIN)/instahide demo

test: $(STAMP) ## Run the tests, with coverage
	$(BIN)/python -m pytest $(PARALLEL) --cov --durations 60 --durations-min 5

slow: $(STAMP) ## Run the tests that take minutes
	$(BIN)/python -m pytest $(PARALLEL) -m slow

test-torchvision: $(TORCHVISION)/.installed ## Test wrapped loaders beside torchvision and timm (7 GB to install)
	$(TORCHVISION)/bin/python -m pytest tests/torchvision tests/integrations

test-pythons: ## Run the tests on Python 3.11, 3.12 and 3.13, each in an environment of its own
	@set -e; for version in $(PYTHONS); do \
		$(MAKE) test PYTHON=python$$version VENV=.venv-$$version; \
	done

test-lowest: $(LOWEST)/.installed ## Test the lowest declared releases of all dependencies
	$(LOWEST)/bin/python -m pytest $(PARALLEL) $(LOWEST_TESTS) --ignore tests/integrations/flower \
		--ignore tests/training/models/test_deployment.py

test-hashes: ## Install requirements.lock, which has hashes, and train a network (Python 3.11)
	$(PYTHON) -m venv --clear $(HASHED)
	$(HASHED)/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	$(HASHED)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(HASHED)/bin/python -m pip check
	$(HASHED)/bin/instahide train digits --scheme inside --k 2 --epochs 1 --out $(HASHED)/run

lock: SHELL := bash -o pipefail
lock: $(STAMP) ## Write requirements.lock and constraints-lowest.txt anew
	$(BIN)/$(COMPILE) --extra demo --extra dev --extra docs -c constraints.txt \
		--no-strip-extras --generate-hashes $(TORCH) \
		| awk "$$WITHOUT_EXTRAS" > requirements.lock.new && mv requirements.lock.new requirements.lock
	$(BIN)/$(COMPILE) $(addprefix --extra ,$(LOWEST_EXTRAS)) \
		--resolution lowest-direct --upgrade --output-file constraints-lowest.txt

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

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet -c constraints-lowest.txt -e '.[$(shell echo $(LOWEST_EXTRAS) | tr ' ' ,)]'
	@touch $@
