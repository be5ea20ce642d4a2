# Everything that is done with this project, on a machine that has Python 3.11 or newer and make.
# Each target makes the virtual environment, and installs into it what it needs, by itself.

VENV ?= .venv
BIN = $(VENV)/bin
# The first Python that is new enough; `make PYTHON=/path/to/python3.13 test` chooses another.
PYTHON ?= $(shell for python in \
	python3.13 python3.14 python3.12 python3.11 python3.15 python3 python; do \
	"$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
# What `make test` gives to pytest, as in `make test ARGS="-k pump"`; the tests run one after the
# other then, so that -s and --pdb work. `-n auto` in it runs several at a time here as well.
ARGS ?=
# Several tests at a time; tests/conftest.py says how many, and which have to stay together.
PARALLEL = --numprocesses auto --dist loadgroup --no-loadscope-reorder
# The Pythons that the types are checked for.
VERSIONS = 3.11 3.12 3.13 3.14 3.15
# It looks for modules where the `python` on PATH does.
PYRIGHT = PATH="$(abspath $(BIN)):$$PATH" basedpyright

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Whatever these targets install has the versions of this file; `make pins` moves them. The tests
# that call pip inherit the variables. pip takes the second one for what it builds with, `python -m
# build` the first. Both are split at spaces: as a URL, a folder may have one in its name.
PINS = constraints.txt
space := $() $()
export PIP_CONSTRAINT = file://$(subst $(space),%20,$(CURDIR))/$(PINS)
export PIP_BUILD_CONSTRAINT = $(PIP_CONSTRAINT)

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help version run test test-fast test-newest lint types docs bench bench-full bench-jobs \
	transparency dist coverage mutants pins format check clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

version: ## Print the version, as in pyproject.toml
	@sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml

run: $(VENV)/.has-example ## Serve the example app, and print the address to open
	@$(BIN)/python -m example_app

test: $(VENV)/.has-test $(VENV)/.has-examples ## Run every test, in 10 minutes; it says what it skips
	$(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL))

test-fast: $(VENV)/.has-test ## Run the tests that need no server and no browser, in a minute
	$(BIN)/python -m pytest $(PARALLEL) tests/core tests/request tests/app tests/pumps \
		tests/shutdown tests/telemetry tests/kit $(ARGS)

# Left out is what hardly depends on versions: quattro_core, which needs none, load and benchmarks.
test-newest: ## Run the tests on the newest versions of everything, whatever the pins say
	@rm -f .venvs/newest/.has-test .venvs/newest/.has-examples
	@$(MAKE) --no-print-directory $(NEWEST) .venvs/newest/.has-test .venvs/newest/.has-examples
	@echo "versions that are not those of $(PINS):"
	@cut -d ' ' -f 1 $(PINS) >.venvs/newest/pins
	@.venvs/newest/bin/python -m pip list --exclude-editable --format freeze | \
		tr 'A-Z_' 'a-z-' | grep -vxFf .venvs/newest/pins || echo none
	@$(MAKE) --no-print-directory $(NEWEST) test ARGS="$(or $(ARGS),$(PARALLEL) \
		--ignore=tests/core --ignore=tests/jobs --ignore=tests/load --ignore=tests/benchmarks)"
NEWEST = VENV=.venvs/newest PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= \
	UPGRADE="--upgrade --upgrade-strategy eager"

lint: $(VENV)/.has-lint ## Check style, formatting, the layers of the packages and the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config \
		.github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.readthedocs .readthedocs.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec example_app/compose*.yaml

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

bench: $(VENV)/.has-bench ## Run the benchmarks, side by side with the peers, in ten minutes
	$(BIN)/python -m benchmarks $(BENCHMARKS)

bench-full: $(VENV)/.has-bench ## Run them with more rounds, in 30 to 90 minutes, for docs/benchmarks.md
	$(BIN)/python -m benchmarks --size full --json docs/_static/benchmarks.json
	$(BIN)/python -m benchmarks.page

bench-jobs: $(VENV)/.has-bench-jobs ## Run the benchmarks of jobs, beside other queues, on a Redis
	$(BIN)/python -m benchmarks.jobs

transparency: $(VENV)/.has-test ## Run Starlette's and FastAPI's own tests with the middleware around
	$(BIN)/python -m tests.transparency --all

dist: $(VENV)/.has-test ## Build the sdist, and the wheel from it, in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

# Before 3.12, Python's tracing loses sight of code after a cancellation that ran: take a newer one,
# as in `make coverage VENV=.venvs/3.13 PYTHON=python3.13`.
coverage: $(VENV)/.has-test $(VENV)/.has-examples ## Run every test, and tell which lines none of them reached
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

# The module to break, and what else `python -m tests.mutants --help` knows, as in
# `make mutants MODULE=quattro_core/_limits.py ARGS="--sample 50"`.
MODULE ?=

mutants: $(VENV)/.has-mutants ## Break MODULE in small ways, and print what no test notices
	@test -n "$(MODULE)" || { echo 'which one? make mutants MODULE=quattro_core/_limits.py' >&2; \
		exit 1; }
	@$(BIN)/python -m tests.mutants $(MODULE) $(ARGS)

# uv resolves for all Pythons at once, which pip can't; it is pinned like everything else.
pins: ## Move the pins: write the newest versions that go together to constraints.txt
	@$(MAKE) --no-print-directory VENV=.venvs/pins .venvs/pins/.made
	@.venvs/pins/bin/python -m pip install -qq --upgrade "pip>=25.3"
	@.venvs/pins/bin/python -m pip install -qq --group pins
	.venvs/pins/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --all-extras \
		$$(.venvs/pins/bin/python -c 'import tomllib; \
			groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; \
			print(*(f"--group={group}" for group in groups))') \
		pyproject.toml --output-file $(PINS)
	@git --no-pager diff --stat -- $(PINS) 2>/dev/null || true

format: $(VENV)/.has-lint ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: test lint types docs ## Everything that has to be right before a change lands

clean: ## Remove what these targets made, the virtual environment included
	rm -rf $(VENV) .venvs dist build docs/_build artifacts .coverage htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Runs pip and shows how far it is: with --quiet it says nothing for a minute, without it 400 lines.
# A terminal sees each package, a log every twentieth. Where pip fails, its last lines are shown.
define install
{ $(BIN)/python -m pip install --progress-bar off $(1) 2>&1 || echo failed; } | \
	tee $(VENV)/pip.log | { count=0; status=0; \
	while read -r word name rest; do case "$$word" in \
		Collecting|Processing) count=$$((count + 1)); name=$${name##*/}; \
			if [ -t 1 ]; then printf '\r\033[K  package %d: %s' "$$count" "$$name"; \
			elif [ $$((count % 20)) = 1 ]; then echo "  package $$count: $$name"; fi ;; \
		Installing) [ "$$name" = collected ] || continue; [ ! -t 1 ] || printf '\r\033[K'; \
			set -- $$rest; echo "  installing $$(($$# - 1)) packages" ;; \
		failed) status=1 ;; esac; done; \
	[ $$status = 0 ] || { tail -n 20 $(VENV)/pip.log >&2; exit 1; }; }
endef

# A file for each dependency group that is installed. What lists them, and their versions, makes
# them old.
$(VENV)/.has-%: $(VENV)/.made pyproject.toml $(PINS)
	@echo "installing what \"$*\" needs in $(VENV)"
	@$(BIN)/python -m pip install -qq --upgrade "pip>=25.3"
	@$(call install,$(UPGRADE) --editable . --group $*)
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
	@echo "making a virtual environment in $(VENV) with $(PYTHON); to fill it takes about a minute"
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@
