# Every command of this project; `make help` lists them. GNU make 3.81, the one that macOS brings, reads this file too.
# PYTHON=/path/to/python chooses the interpreter that makes the virtual environment; see scripts/make_venv.sh.

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check install -c constraints.txt
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
FOOTBALL_VENV := .venv-football
INSTALLED_FOOTBALL := $(FOOTBALL_VENV)/.installed
FLOORS_VENV := .venv-floors
INSTALLED_FLOORS := $(FLOORS_VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install dev train test learning chaos lint format docs dist packaging football floors clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## Install aioseed with everything a learner host needs into .venv

dev: $(INSTALLED_DEV) ## Install what tests, linters and documentation need as well

train: install ## Train CartPole until it is solved
	@$(BIN)/aioseed train cartpole

test: lint ## Check formatting, types and imports, then run every test
	$(BIN)/pytest -n 2

learning: dev ## Train small presets to their goals, three seeds each
	XLA_FLAGS="$(XLA_FLAGS)" $(BIN)/pytest -n 2 -m learning --durations=0 tests/integration/test_learning.py

# First what counts, two at a time; then what measures times and memory, with the machine to itself; then a preset. What
# was seen, seeds included, is kept in runs/.
CHAOS := XLA_FLAGS="$(XLA_FLAGS)" AIOSEED_CHAOS_FULL=$(FULL) AIOSEED_CHAOS_LOG=$(CURDIR)/runs/chaos-simulations.jsonl \
	$(BIN)/pytest --durations=0 -rA -o junit_logging=system-out -o faulthandler_timeout=0

chaos: dev ## Break things for an hour and check that nothing is lost; FULL=1 takes the large numbers
	@mkdir -p runs
	failed=0; \
	$(CHAOS) -n 2 -m 'chaos and not alone' --junit-xml=runs/chaos-counts.xml || failed=1; \
	$(CHAOS) -m 'chaos and alone' --junit-xml=runs/chaos-figures.xml || failed=1; \
	$(BIN)/aioseed chaos cartpole --minutes $(if $(FULL),60,5) --json || failed=1; \
	exit $$failed

lint: dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev ## Format the code and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: dev ## Build the documentation into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: dev ## Build the wheel and the source distribution into dist/
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build

packaging: dev ## Run the packaging tests alone
	$(BIN)/pytest tests/packaging

football: $(INSTALLED_FOOTBALL) ## Install what football actors need into .venv-football, and test the real engine
	$(FOOTBALL_VENV)/bin/python -m pytest tests/unit/aioseed_football

floors: $(INSTALLED_FLOORS) ## Run every test with the oldest versions that pyproject.toml allows, in .venv-floors
	@# JAX before 0.10.2 writes a kilobyte about each program that it finds in its cache.
	TF_CPP_MIN_LOG_LEVEL=3 $(FLOORS_VENV)/bin/pytest -n 2

clean: ## Remove .venv, caches and whatever was built; runs/ stays
	rm -rf $(VENV) $(FOOTBALL_VENV) $(FLOORS_VENV) dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each stamp is newer than the files that it was installed from, so that nothing is installed twice.
$(INSTALLED): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' sh scripts/make_venv.sh $(VENV)
	@echo 'Installing aioseed and what a learner needs into $(VENV): about a minute the first time'
	@$(PIP_INSTALL) --upgrade pip
	@$(PIP_INSTALL) --build-constraint constraints.txt --editable '.[learner]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo 'Installing what the tests need'
	@$(PIP_INSTALL) --group dev
	@touch $@

$(INSTALLED_FOOTBALL): pyproject.toml scripts/make_football.sh scripts/football-constraints.txt
	@PYTHON='$(PYTHON)' sh scripts/make_football.sh $(FOOTBALL_VENV)
	@touch $@

$(INSTALLED_FLOORS): pyproject.toml scripts/make_floors.sh scripts/make_venv.sh
	@PYTHON='$(PYTHON)' sh scripts/make_floors.sh $(FLOORS_VENV)
	@touch $@
