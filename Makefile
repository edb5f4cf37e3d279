# Everything a newcomer types. Needs make and Python 3.11 or newer; sets up the rest by itself.
# Paths are relative to this folder throughout, so that its own path may contain spaces.

.DEFAULT_GOAL := help
.PHONY: help setup setup-node demo test test-redis test-unit test-pythons coverage test-node test-browser lint format schema bench fuzz faults wheel lock clean
MAKEFLAGS += --no-print-directory

# Interpreters to try, the tested one first; PYTHON=... names another.
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3.14 python3)
PY := .venv/bin/python
# Several processes, each with servers of its own; tests/conftest.py says how many are `auto`.
RUN_TESTS := -m pytest -n auto --dist worksteal
PYTEST := $(PY) $(RUN_TESTS)
READY := .venv/.ready
NODE_READY := tests/gateway/node/node_modules/.package-lock.json

# READY holds the folder that it was made in: a moved .venv has its old path in every script.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

# Trust what this machine trusts (a company's own authority, say), where it has a list of that.
TRUSTED := $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))
ifneq ($(TRUSTED),)
export UV_SYSTEM_CERTS ?= 1
export NODE_EXTRA_CA_CERTS ?= $(TRUSTED)
endif

# Compile each module once, also for the many processes that tests start; outside the source tree.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/pyc

# Shell snippets, each one command of a recipe.
# find_python: sets $$python to the first interpreter that runs and is new enough.
find_python = python=; for p in $(PYTHONS); do \
	if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then python=$$p; break; fi; done; \
	if [ -z "$$python" ]; then \
	echo "riverdelta: no Python 3.11 or newer found (tried: "$(PYTHONS)"); install one, or say make PYTHON=/path/to/python3" >&2; \
	exit 1; fi
# find_uv: sets $$uv to the one on PATH if it runs, else to our own, fetched once.
find_uv = if uv --version >/dev/null 2>&1; then uv=uv; else uv=.tools/uv-venv/bin/uv; \
	if ! "$$uv" --version >/dev/null 2>&1; then \
	if ! "$$python" -c 'import ensurepip' >/dev/null 2>&1; then \
	echo "riverdelta: $$python cannot make virtual environments (no ensurepip); install Debian's python3-venv, or uv" >&2; \
	exit 1; fi; \
	echo "riverdelta: fetching uv into .tools"; \
	rm -rf .tools/uv-venv; "$$python" -m venv .tools/uv-venv; \
	.tools/uv-venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt; \
	fi; fi

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## build .venv: every extra and the development tools, as locked
	@:

$(READY): pyproject.toml requirements/dev.txt requirements/uv.txt
	@set -e; $(find_python); $(find_uv); \
	if [ -e $(READY) ] && [ "$$(cat $(READY))" != "$(CURDIR)" ]; then rm -rf .venv; fi; \
	if ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	echo "riverdelta: creating .venv with $$("$$python" --version)"; \
	rm -rf .venv; UV_PYTHON_DOWNLOADS=never "$$uv" venv --quiet --python "$$python" .venv; fi; \
	echo "riverdelta: installing what requirements/dev.txt locks"; \
	"$$uv" pip sync --quiet --python $(PY) --require-hashes requirements/dev.txt; \
	"$$uv" pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .; \
	echo "$(CURDIR)" > $(READY)

demo: $(READY) ## stream a recorded reply through server, workers and readers
	@.venv/bin/riverdelta pipe --source openai-chat ops/riverdelta_cli/demo/reply.jsonl --pace-ms 20

test: $(READY) ## run every test but those in a browser, on Valkey (ARGS='-k name' narrows)
	@$(PYTEST) --ignore tests/browser -m 'not redis_server' $(ARGS)

test-redis: $(READY) ## run the tests of a server again, on the redis-server of PATH
	@$(PYTEST) tests/integration tests/packaging -m redis_server $(ARGS)

test-unit: $(READY) ## run the tests that need no server
	@$(PYTEST) tests/unit $(ARGS)

# Every interpreter that the classifiers promise, from PATH, pyenv or uv; each has an environment of its own.
VERSIONS := 3.11 3.12 3.13
test-pythons: ## run them on each Python found (TESTS=tests for all tests)
	@set -e; $(find_python); $(find_uv); \
	for version in $(VERSIONS); do \
	p=python$$version; \
	if ! "$$p" -c '' >/dev/null 2>&1; then p="$$(pyenv prefix $$version 2>/dev/null || true)/bin/python"; fi; \
	if ! "$$p" -c '' >/dev/null 2>&1; then p="$$("$$uv" python find --managed-python $$version 2>/dev/null || true)"; fi; \
	if ! "$$p" -c '' >/dev/null 2>&1; then echo "riverdelta: no Python $$version here"; continue; fi; \
	echo "riverdelta: tests on $$("$$p" --version)"; own=.tools/python$$version; \
	if ! "$$own/bin/python" -c '' >/dev/null 2>&1; then \
	rm -rf "$$own"; UV_PYTHON_DOWNLOADS=never "$$uv" venv --quiet --python "$$p" "$$own"; fi; \
	"$$uv" pip sync --quiet --python "$$own/bin/python" --require-hashes requirements/dev.txt; \
	"$$uv" pip install --quiet --python "$$own/bin/python" --no-deps --no-build-isolation --editable .; \
	"$$own/bin/python" $(RUN_TESTS) $(or $(TESTS),tests/unit) $(ARGS); \
	done

coverage: $(READY) ## run every test but those in a browser; which lines did not run, also in processes
	@COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(PYTEST) --ignore tests/browser --cov --cov-report term:skip-covered --cov-report html:.artifacts/coverage $(ARGS)

setup-node: $(NODE_READY) ## install the AI SDK, which some tests run (needs Node and npm)
	@:

$(NODE_READY): tests/gateway/node/package-lock.json
	@npm ci --prefix tests/gateway/node --silent --no-audit --no-fund

test-node: $(READY) $(NODE_READY) ## run the tests with the AI SDK's own client
	@$(PYTEST) tests/gateway/test_ai_sdk_node.py $(ARGS)

test-browser: $(READY) ## run the page's tests in chromium; pictures in .artifacts/browser
	@$(PY) -m pytest tests/browser $(ARGS)

# What codespell reads. Recordings and vendored code keep their authors' words.
WORDS_IN = $(shell git ls-files '*.py' '*.md' '*.lua' '*.js' '*.mjs' '*.html' '*.css' '*.sh' '*.yml' Makefile .ci/run ops \
	':!tests/recordings' ':!*/static/vendor')

lint: $(READY) ## ruff, mypy, the import contracts and the banned words
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-cache --no-logo
	@.venv/bin/codespell $(WORDS_IN)

format: $(READY) ## apply ruff's formatting and safe fixes
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix --quiet .

SCHEMA := shared/riverdelta/core/events.schema.json
schema: $(READY) ## write the JSON Schema of the events
	@$(PY) -c 'import json; from riverdelta.core.events import json_schema; print(json.dumps(json_schema(), indent=2))' > $(SCHEMA)

bench: $(READY) ## measure against the rivals in one run
	@$(PY) ops/bench/run.py $(ARGS)

fuzz: $(READY) ## 20,000 bent provider streams through the codecs; RIVERDELTA_FUZZ_SEED=N for others
	@RIVERDELTA_FUZZ_STREAMS=$${RIVERDELTA_FUZZ_STREAMS:-20000} $(PY) -m pytest -q --timeout 0 -n auto tests/unit/codecs/test_oddities_fuzz.py

SECONDS := 60
faults: $(READY) ## break everything at once and watch (SECONDS=60 SEED=... replays)
	@$(PY) ops/faults/run.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

wheel: $(READY) ## build dist/riverdelta-*.whl
	@$(PY) -m hatchling build --target wheel --directory dist

# One resolution for everyone: dev.txt is resolved first, the others are held to it.
# Names no index: whoever installs uses the one that their own machine is set to.
COMPILE = pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE)
lock: ## resolve the versions in requirements/ again (UPGRADE=--upgrade for newer ones)
	@set -e; $(find_python); $(find_uv); \
	"$$uv" $(COMPILE) pyproject.toml --all-extras --group dev --output-file requirements/dev.txt; \
	"$$uv" $(COMPILE) pyproject.toml --extra workers --extra gateway --extra backends --extra cli \
		--constraints requirements/dev.txt --output-file requirements/runtime.txt; \
	"$$uv" $(COMPILE) --group build --constraints requirements/dev.txt --output-file requirements/build.txt; \
	"$$uv" $(COMPILE) --group uv --output-file requirements/uv.txt

clean: ## remove what make has built, .venv included
	@rm -rf .venv .tools .cache dist .artifacts .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
