# Two commands: `make run` releases the example onto a real Kubernetes, `make test` runs every test.
# Needs: Debian with Python 3.11, JDK 17, Maven, Node and Go (for `make test-long` Rust, too); the rest is installed below.

SHELL := /bin/bash
UV_VERSION := 0.13.9
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pipe-ci/uv-$(UV_VERSION)
UV := $(TOOLS)/bin/uv
PYTHON := .venv/bin/python
export UV_PYTHON_DOWNLOADS := never
# Without byte code every start of pipe would compile its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-long check up down status format bench help

run: .venv/.ready  ## Set everything up and release both pipelines of the example
	@$(PYTHON) -m sandbox.release

test: .venv/.ready  ## Everything: lint, types, import rules, and all tests against the real sandbox
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports --no-cache
	$(PYTHON) -m sandbox tools
	$(PYTHON) -m sandbox up
	$(PYTHON) -m pytest -n 2 --dist loadfile --durations 30

check: .venv/.ready  ## What is quick: lint, types, import rules, tests without the sandbox
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -q -n 2 -m "not sandbox and not slow and not long"

test-long: .venv/.ready  ## What takes minutes: every crash point, a storm of kills
	$(PYTHON) -m sandbox tools
	$(PYTHON) -m sandbox up
	$(PYTHON) -m pytest -v -m long

up: .venv/.ready  ## Start the sandbox: docker engine, registry, git host, mail sink, Kubernetes
	$(PYTHON) -m sandbox up

down: .venv/.ready  ## End the sandbox and leave nothing behind
	$(PYTHON) -m sandbox down

status: .venv/.ready  ## Say how the sandbox is
	$(PYTHON) -m sandbox status

bench: .venv/.ready  ## Measure: the engine's own cost, parallel builds, rollouts, a release against a shell script
	@$(UV) sync --frozen --system-certs --all-extras --group bench --compile-bytecode --quiet
	$(PYTHON) -m bench.engine docs/benchmarks.md
	$(PYTHON) -m bench.logs
	$(PYTHON) -m bench.parallel
	$(PYTHON) -m bench.preflight
	$(PYTHON) -m bench.rollout
	$(PYTHON) -m bench.diagnosis
	$(PYTHON) -m bench.fleet
	$(PYTHON) -m bench.release

format: .venv/.ready
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

.venv/.ready: uv.lock pyproject.toml $(UV)
	@$(UV) sync --frozen --all-extras --system-certs --compile-bytecode --quiet
	@touch $@

$(UV):
	@echo "installing uv $(UV_VERSION)"
	@python3 -m venv $(TOOLS) && PIP_DISABLE_PIP_VERSION_CHECK=1 $(TOOLS)/bin/pip install --quiet uv==$(UV_VERSION)
