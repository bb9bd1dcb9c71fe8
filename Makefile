# Two commands do everything from a bare clone: `make demo` and `make test`. Both make their own environment in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test up check fix ui bench clean

demo: $(VENV)/.server          ## the five labs, back to back, offline
	@$(BIN)/opsloop demo

up: $(VENV)/.server            ## the server with the simulated bot
	@$(BIN)/opsloop up --demo

test: $(VENV)/.test            ## the whole test suite
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.test           ## lint, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

fix: $(VENV)/.test             ## what the linter and formatter can mend
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("opsloop needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip

# The UI is built while the package is installed, so a change of its sources installs again.
UI_SOURCES := $(shell find ui -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

$(VENV)/.server: $(VENV)/bin/python pyproject.toml hatch_build.py $(UI_SOURCES)
	@$(PIP) install --editable '.[server]'
	@touch $@

$(VENV)/.test: $(VENV)/.server
	@$(PIP) install --editable '.[server]' --group test --group senders --group check
	@touch $@

clean:
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
