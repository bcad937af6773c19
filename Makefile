# Everything a person or a CI runs. `make help` lists it.
#
# .venv is made from requirements.lock, which pins every package with its hashes for Python 3.11 and newer on
# Linux and macOS. `make lock` writes it anew from pyproject.toml.

SHELL := /bin/bash
PY := .venv/bin/python
PIP := .venv/bin/pip --quiet --disable-pip-version-check --no-input
.DEFAULT_GOAL := help
.PHONY: help format lint types test demo bench bench-peers check lock settings clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

format: .venv/.stamp ## rewrite the Python sources in the one style
	$(PY) -m ruff format . && $(PY) -m ruff check --fix .

lint: .venv/.stamp ## check style and likely mistakes, in Python and in Lua
	$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) .ci/luacheck.py

types: .venv/.stamp ## check the types, strictly
	$(PY) -m mypy

test: .venv/.stamp ## run every test on every engine that is here; ARGS='-k word' narrows it
	$(PY) -m pytest -n 2 --dist loadgroup $(ARGS)

demo: .venv/.stamp ## a real pipeline, live, on a private server
	.venv/bin/hybridq demo

bench: .venv/.stamp ## measure the library and the HTTP side beside their limits; ARGS='claim --repeats 3' narrows it
	.venv/bin/hybridq bench --save benchmarks.json --plots benchmarks-plots $(ARGS)

bench-peers: .venv/.stamp ## measure hybridq beside other queues, each installed for itself; ARGS='saq rq' narrows it
	$(PY) -m benchmarks.peers --json benchmarks-peers.json $(ARGS)

check: lint types test ## what must pass before a commit

lock: .venv/.stamp ## write requirements.lock anew, with the newest versions pyproject.toml allows
	$(PY) -m uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --all-extras \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock

settings: .venv/.stamp ## write the table of settings into README.md
	$(PY) -m api.settings README.md
	$(PY) -m hybridq.agent.life.settings README.md

clean: ## remove .venv and everything else that can be made again
	rm -rf .venv build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The newest Python from 3.11 on that runs and can make environments. It is asked for by running it: a name on
# PATH may be a version manager's stand-in for something that is not selected.
.venv/.stamp: requirements.lock pyproject.toml
	@if ! test -x $(PY); then \
	  for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	    if $$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "making .venv with $$($$name --version)"; $$name -m venv .venv || exit 1; break; \
	    fi; \
	  done; \
	  test -x $(PY) || { echo "make: Python 3.11 or newer, with its venv module, is needed and not on PATH" >&2; exit 1; }; \
	fi
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
