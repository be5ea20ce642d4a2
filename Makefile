# Everything that is done with this project, on a machine that has Python 3.11 or newer and make.
# Each target makes the virtual environment, and installs into it what it needs, by itself.

VENV ?= .venv
BIN = $(VENV)/bin
# The first Python that is new enough; `make PYTHON=/path/to/python3.13 test` chooses another.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
# What `make test` gives to pytest, as in `make test ARGS="-k pump"`.
ARGS ?=
# The Pythons that the types are checked for.
VERSIONS = 3.11 3.12 3.13
# It looks for modules where the `python` on PATH does.
PYRIGHT = PATH="$(abspath $(BIN)):$$PATH" basedpyright

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test lint types docs bench bench-full transparency dist coverage format check clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.has-example ## Serve the example app, and print the address to open
	@$(BIN)/python -m example_app

test: $(VENV)/.has-test ## Run every test (the browser's are skipped where chromium is missing)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.has-lint ## Check style, formatting and the layers of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.has-types ## Check the types, for every supported Python
	@for version in $(VERSIONS); do \
		echo "mypy for Python $$version"; $(BIN)/mypy --python-version $$version || exit 1; \
		echo "pyright for Python $$version"; \
		$(PYRIGHT) --pythonversion $$version tests/typing || exit 1; done
	@for package in quattro_core quattro_web; do \
		echo "is all that $$package exports typed?"; \
		$(PYRIGHT) --ignoreexternal --verifytypes $$package >$(VENV)/untyped || \
		{ cat $(VENV)/untyped; exit 1; }; done

docs: $(VENV)/.has-docs ## Build the documentation in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build/html
	@echo "the documentation is in docs/_build/html/index.html"

# Which of them, as in `make bench BENCHMARKS="limit map"`; all where nothing is said.
BENCHMARKS ?=

bench: $(VENV)/.has-bench ## Run the benchmarks, side by side with the peers, in five minutes
	$(BIN)/python -m benchmarks $(BENCHMARKS)

bench-full: $(VENV)/.has-bench ## Run them with more rounds, in 25 minutes, for docs/benchmarks.md
	$(BIN)/python -m benchmarks --size full --json docs/_static/benchmarks.json
	$(BIN)/python -m benchmarks.page

transparency: $(VENV)/.has-test ## Run Starlette's and FastAPI's own tests with the middleware around
	$(BIN)/python -m tests.transparency --all

dist: $(VENV)/.has-test ## Build the sdist, and the wheel from it, in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

# Before 3.12, Python's tracing loses sight of code after a cancellation that ran: take a newer one,
# as in `make coverage VENV=.venvs/3.13 PYTHON=python3.13`.
coverage: $(VENV)/.has-test ## Run every test, and tell which lines and branches none of them reached
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

format: $(VENV)/.has-lint ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: test lint types docs ## Everything that has to be right before a change lands

clean: ## Remove what these targets made, the virtual environment included
	rm -rf $(VENV) .venvs dist build docs/_build artifacts .coverage htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A file for each dependency group that is installed. pyproject.toml lists them, so it makes them old.
$(VENV)/.has-%: $(VENV)/.made pyproject.toml
	@echo "installing what \"$*\" needs in $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable . --group $*
	@touch $@

$(VENV)/.made:
	@test -n "$(PYTHON)" || { printf '%s\n' \
		'quattro-web needs Python 3.11 or newer, with its venv module, and found none.' \
		'Debian and Ubuntu: apt-get install python3 python3-venv' \
		'Where it has another name: make PYTHON=/path/to/python3' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { printf '%s\n' \
		'$(PYTHON) does not run, or is older than Python 3.11.' >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || { printf '%s\n' \
		'$(PYTHON) cannot make virtual environments: its module ensurepip is missing.' \
		'Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@echo "making a virtual environment in $(VENV) with $(PYTHON)"
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@
