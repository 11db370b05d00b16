# What developers do; `./pg-hotfix` is for everybody else. A fresh clone needs git, make and python3 (3.11 or later): each
# target sets up the rest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON := .venv/bin/python
# The first that starts: pyenv's refuses to when it lacks the version of .python-version.
SYSTEM_PYTHON = $(shell for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
UV := .tools/bin/uv
GROUPS := uv dev function cli bench scan postgres-14 postgres-15 postgres-16 postgres-17 postgres-18
VERSIONS := 14 15 16 17 18

# No target touches a real AWS account: sam and boto3 see these credentials only.
export AWS_ACCESS_KEY_ID := local
export AWS_SECRET_ACCESS_KEY := local
export AWS_DEFAULT_REGION := us-east-1
export AWS_CONFIG_FILE := /dev/null
export AWS_SHARED_CREDENTIALS_FILE := /dev/null
unexport AWS_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_REGION
export SAM_CLI_TELEMETRY := 0
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME
# Without bytecode on disk each program compiles all its packages once more, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE
# The servers of the laptop are on 127.0.0.1: a proxy has no business there.
export NO_PROXY := 127.0.0.1,localhost,$(NO_PROXY)
export no_proxy := $(NO_PROXY)
# sam looks for python3.13 and its pip on the PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# uv, pip and sam keep caches at home, and sam fails without one.
ifneq ($(shell test -d "$$HOME" && test -w "$$HOME" && echo writable),writable)
export HOME := $(CURDIR)/.local/home
endif

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/ready ## Tell the incident and its fix on an embedded PostgreSQL
	@$(PYTHON) -m cli.main demo

.PHONY: screenshots
screenshots: .venv/ready ## Take the pictures of the button in docs/ again, with this machine's Chromium
	@$(PYTHON) -m laptop.screenshots

.PHONY: build
build: .venv/ready ## Build the function with sam, when its sources changed
	@$(PYTHON) -m laptop.build

# Tests wait more than they compute, so there are more workers than processors. Unit tests do not, and each worker takes
# seconds to start.
WORKERS := $(if $(FAST),2,6)
PYTEST = $(PYTHON) -m pytest -q --numprocesses $(WORKERS) --dist worksteal
CHECKS := lint types template prove scan
# What is made once for all that run at the same time.
AT_ONCE = $(MAKE) --no-print-directory --jobs 2 --output-sync=target

.PHONY: test
test: .venv/ready ## Check style, types, template, SQL and policies, run every test; FAST=1: style, types, unit tests
ifdef FAST
	@$(AT_ONCE) lint types unit
else
	@$(MAKE) --no-print-directory .local/bench/ready .local/scan/ready .local/cli/requirements.txt
	@$(AT_ONCE) $(CHECKS)
	@$(PYTEST)
endif

.PHONY: unit
unit: .venv/ready
	@$(PYTEST) tests/unit

.PHONY: lint
lint: .venv/ready ## Check the style of the Python files
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --quiet --check .

.PHONY: format
format: .venv/ready ## Put the Python files into the project's style
	@$(PYTHON) -m ruff check --quiet --fix .
	@$(PYTHON) -m ruff format --quiet .

.PHONY: types
types: .venv/ready ## Check the types
	@$(PYTHON) -m mypy

.PHONY: template
template: .venv/ready ## Check template.yaml
	@output=$$($(PYTHON) -m samcli validate --lint 2>&1) || { echo "$$output"; exit 1; }
	@.venv/bin/cfn-lint template.yaml

.PHONY: prove
prove: .venv/ready ## Prove every hotfix of sql/ on a filled table
	@$(PYTHON) -m cli.main prove

.PHONY: scan
scan: .venv/ready .local/scan/ready ## Look for weak spots in the template, the policies and the packages
	@$(PYTHON) -m laptop.scan

.PHONY: tests
tests: .venv/ready .local/bench/ready .local/scan/ready .local/cli/requirements.txt ## Run the unit, integration and end-to-end tests
	@$(PYTEST)

.PHONY: test-long
test-long: .venv/ready ## Run the property tests with 10,000 examples and the whole fault sweep
	@$(PYTEST) --long -m long_too

.PHONY: test-matrix
test-matrix: $(VERSIONS:%=.local/postgres-%/ready) ## Run the integration tests on PostgreSQL 14 to 18
	@for version in $(VERSIONS); do \
		echo "PostgreSQL $$version"; \
		$(PYTHON) -m laptop.binaries $$version >/dev/null || exit 1; \
		PG_VERSION=$$version $(PYTEST) tests/integration || exit 1; \
	done

.PHONY: bench
bench: .venv/ready .local/bench/ready ## Measure how fast cold and warm runs are, in some 7 minutes: RUNS=9
	@$(PYTHON) -m bench.speed $(if $(RUNS),--runs $(RUNS))

.PHONY: bench-locks
bench-locks: .venv/ready .local/bench/ready ## Compare how tools stall others, in some 20 minutes: RUNS=3 HOLD=10 BUSY_RUNS=100
	@$(PYTHON) -m bench.locks $(if $(RUNS),--runs $(RUNS)) $(if $(HOLD),--hold $(HOLD)) \
		$(if $(BUSY_RUNS),--busy-runs $(BUSY_RUNS))

.PHONY: reference
reference: .venv/ready ## Write what docs/deploy.md and docs/reference.md take from template and code again
	@$(PYTHON) -m laptop.deploy_page
	@$(PYTHON) -m laptop.reference_page

.PHONY: requirements
requirements: .venv/ready ## Compile requirements/*.txt again; COMPILE=--upgrade takes newer versions
	@for group in $(GROUPS); do \
		case $$group in \
			function) options="--constraint requirements/dev.txt" ;; \
			cli) options="--constraint requirements/dev.txt --universal --python-version 3.11" ;; \
			*) options= ;; \
		esac; \
		$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
			--python $(PYTHON) --group pyproject.toml:$$group $$options $(COMPILE) \
			--output-file requirements/$$group.txt >/dev/null || exit 1; \
	done

.PHONY: update-ca-bundle
update-ca-bundle: .venv/ready ## Fetch the RDS certificates again and show what changed
	@$(PYTHON) -m laptop.update_ca_bundle

.PHONY: clean
clean: ## Stop what a killed run left behind and remove all that was made here
	@$(SYSTEM_PYTHON) laptop/clean.py

.venv/ready: requirements/dev.txt requirements/uv.txt .python-version cli/bootstrap.py
	@test -n "$(SYSTEM_PYTHON)" || \
		{ echo "pg-hotfix needs python3, 3.11 or later: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(SYSTEM_PYTHON) cli/bootstrap.py laptop
	@touch $@

# What ./pg-hotfix makes for itself, too.
.local/cli/requirements.txt: requirements/cli.txt requirements/uv.txt cli/bootstrap.py
	@$(SYSTEM_PYTHON) cli/bootstrap.py cli

.local/postgres-%/ready: requirements/postgres-%.txt .venv/ready
	@echo "Installing PostgreSQL $* ..." >&2
	@rm -rf $(@D)
	@$(UV) pip install --quiet --python $(PYTHON) --require-hashes --only-binary :all: --target $(@D) -r $<
	@touch $@

.local/bench/ready .local/scan/ready: .local/%/ready: requirements/%.txt .venv/ready
	@echo "Installing what is pinned in $< into $(@D) ..." >&2
	@$(UV) venv --quiet --clear --python $(PYTHON) $(@D)
	@$(UV) pip sync --quiet --python $(@D)/bin/python --require-hashes --only-binary :all: $<
	@touch $@

.local/node/ready: tests/node/package.json tests/node/package-lock.json
	@echo "Installing what is pinned in tests/node into $(@D) ..." >&2
	@mkdir -p $(@D)
	@cp $^ $(@D)
	@cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@
