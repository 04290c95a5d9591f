PYTHON ?= python3
BIN := .venv/bin
export PYTHONWARNINGS ?= default

.PHONY: help setup lock
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: .venv/installed ## make .venv with exactly what requirements.lock names

.venv/installed: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

lock: ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --upgrade -o requirements.lock
