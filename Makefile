# make demo    run the main job, with something to look at
# make test    run all tests                         ARGS='-k channel' goes to pytest
# make check   linters, formatter, types, layers
# make bench   measure against the neighbours        ARGS=... goes to the benchmark
# make dev     only make the environment, with everything that the above need
# make clean   remove it, and what tools left behind
#
# Needs Python >= 3.11, pip and make. Everything goes into VENV; PYTHON=... chooses an interpreter.

VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PYTHON ?= $(firstword $(shell .ci/pythons))
ARGS ?=
# So many tests at a time.
JOBS ?= 3
# A uv that installs the packages in place of pip, in a tenth of the time: make UV=uv
UV ?=

python := $(VENV)/bin/python
install := $(if $(UV),$(UV) pip install -q --python $(python),$(python) -m pip install -qq)
# Nothing below looks for a newer pip or pyright.
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format-check async types pyright layers bench dev freeze clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

# -- the environment --------------------------------------------------------------------------
# One stamp for each set of extras that is installed; pip runs again when what it read changes.

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; name one: make PYTHON=..." >&2; exit 1; }
	@# Some systems keep ensurepip in a package of its own; then the pip they have serves.
	"$(PYTHON)" -m venv --clear $(VENV) \
		|| { "$(PYTHON)" -m venv --clear --without-pip $(VENV) \
		     && "$(PYTHON)" -m pip --python $(VENV)/bin/python install -qq pip; }
	@touch $@

$(VENV)/.core: extras =
$(VENV)/.test: extras = [test]
$(VENV)/.dev: extras = [dev]
$(VENV)/.bench: extras = [bench]

$(VENV)/.core $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: $(VENV)/.created pyproject.toml $(CONSTRAINTS)
	$(install) -e '.$(extras)' -c $(CONSTRAINTS)
	@touch $@

# tractor's metadata asks for a pdbpp that no index has; the released one will do.
$(VENV)/.tractor: $(VENV)/.test
	$(install) -c $(CONSTRAINTS) \
		async-generator colorlog msgspec pdbpp tricycle trio-typing wrapt
	$(install) -c $(CONSTRAINTS) --no-deps tractor
	$(python) -W ignore -c 'import tractor'
	@touch $@

dev: $(VENV)/.dev $(VENV)/.bench

freeze: dev
	{ sed -n '/^#/p' $(CONSTRAINTS); $(python) -m pip freeze --exclude-editable | tr A-Z_ a-z-; } \
		> constraints.new
	mv constraints.new $(CONSTRAINTS)

# -- what there is to run ---------------------------------------------------------------------

demo: $(VENV)/.core
	$(python) examples/demo.py $(ARGS)

test: $(VENV)/.dev
	$(python) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

bench: $(VENV)/.bench
	$(python) -m bench $(ARGS)

# -- what machines can check ------------------------------------------------------------------

code := $(wildcard src examples tests bench docs)
typed := $(wildcard src examples tests/typing*)

# Those of flake8-async that ruff lacks, which takes its time. Tests break them on purpose.
async_rules := ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC111,ASYNC112,ASYNC113,ASYNC119,ASYNC120,ASYNC121,ASYNC122,ASYNC123

check: lint format-check async types pyright layers

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .

format-check: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .

async: $(VENV)/.dev
	grep -rlwE 'async|await|trio' --include='*.py' $(filter-out tests,$(code)) \
		| xargs -n 40 -P 2 $(VENV)/bin/flake8-async --enable=$(async_rules)

types: $(VENV)/.dev
	$(VENV)/bin/mypy --strict $(typed)

pyright: $(VENV)/.dev
	$(VENV)/bin/pyright --pythonpath $(python)

layers: $(VENV)/.dev
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) .venv-* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(code) -name __pycache__ -prune -exec rm -rf {} +
