# Everything happens inside this folder: .venv (environment), .demo (Airflow's home), .cache.
.DEFAULT_GOAL := help
.PHONY: help demo ui incident test test-long chaos test-airflow2 test-lowest test-newest test-warehouses distributed matrix check docs format bench bench-report build ci clean

READY := .venv/.ready
PY := .venv/bin/python
# A tool of the user's environment must not steer ours, nor make it compile all modules in each process anew.
unexport PYTHONPATH VIRTUAL_ENV AIRFLOW_HOME PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): uv.lock pyproject.toml scripts/setup.sh
	@echo "Making the environment in .venv (once)..."
	@scripts/setup.sh
	@touch $@

demo: $(READY) ## Run the example DAGs in Airflow against a local Regal, and show what it holds then
	@exec $(PY) -m scripts.demo

ui: $(READY) ## Keep Airflow's UI and the local Regal's pages open, with what the demo made, until Ctrl-C
	@exec $(PY) -m scripts.ui

incident: $(READY) ## Let an incident happen in Airflow, to be fixed in a browser; NAME=outage, or all: see docs/runbook.md
	@DEMO_HOME=$(CURDIR)/.demo/incident exec $(PY) -m scripts.incident $(NAME) $(if $(MINUTES),--minutes $(MINUTES))

test: $(READY) ## Run the tests
	@$(PY) -m pytest -n 4 -m "not services and not slow and not long and not distributed" tests

test-long: $(READY) ## Run the tests that take minutes: many kills, many rows
	@$(PY) -m pytest -n 2 -m long tests

chaos: $(READY) ## Let deliveries go through drawn storms: outages, kills, bad answers; SEED=17 RUNS=1 repeats one, KEEP=1 keeps results
	@scripts/setup.sh --group services --group s3
	@exec $(PY) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS)) $(if $(LEDGERS),--ledgers $(LEDGERS)) \
		$(if $(BREAK),--break $(BREAK)) $(if $(KEEP),--keep)

test-airflow2: # Run the tests on the oldest supported Airflow (2.11); not in the help, like test-warehouses
	@UV_PROJECT_ENVIRONMENT=.venv-airflow2 scripts/setup.sh --no-group airflow3 --group airflow2
	@.venv-airflow2/bin/python -m pytest -n 4 -m "not services and not slow and not long and not distributed" tests

test-lowest: $(READY) # Run the tests on Airflow 2.11 and the lowest versions of our own requirements, and measure coverage
	@scripts/test_lowest.sh

test-newest: # Run the tests with the newest versions of all dependencies, as a workflow does each week
	@scripts/test_newest.sh

# The drivers of BigQuery and Snowflake, in an environment of their own (1.6 GB).
test-warehouses:
	@UV_PROJECT_ENVIRONMENT=.venv-warehouses scripts/setup.sh --group warehouses
	@.venv-warehouses/bin/python -m pytest -m warehouses tests/services

# The tests on an Airflow with two Celery workers, about ten minutes; FULL=1 sends more single events, and keeps the numbers.
distributed:
	@UV_PROJECT_ENVIRONMENT=.venv-distributed scripts/setup.sh --group services --group celery
	@FULL=$(FULL) .venv-distributed/bin/python -m pytest -m distributed tests/distributed

matrix: $(READY) ## Use the wheel with each supported Airflow and Python; VERSIONS="3.0.6 3.1.8" PYTHON=3.12 PACKAGES=newest for some
	@exec $(PY) -m scripts.install_matrix $(if $(ENDS),--ends) $(if $(PYTHON),--python $(PYTHON)) \
		$(if $(PACKAGES),--packages $(PACKAGES)) $(VERSIONS)

check: $(READY) ## Lint, types, architecture and docs
	@scripts/check.sh

docs: ## Build the docs site, check it and serve it until Ctrl-C
	@UV_PROJECT_ENVIRONMENT=.venv-docs scripts/setup.sh --group docs
	@exec .venv-docs/bin/python -m scripts.docs $(if $(CHECK),--check)

format: $(READY) ## Format the code
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

bench: ## Measure speed, memory and pacing; PARTS="whole_path pacing" for some of it, FULL=1 as for docs/performance.md
	@UV_PROJECT_ENVIRONMENT=.venv-bench scripts/setup.sh --group bench --group services
	@.venv-bench/bin/python -m benchmarks $(if $(FULL),--full) $(PARTS)

bench-report: # Make the tables and pictures of docs/performance.md from the last results
	@UV_PROJECT_ENVIRONMENT=.venv-bench scripts/setup.sh --group bench --group services
	@.venv-bench/bin/python -m benchmarks report

build: $(READY) ## Build wheel and source distribution, and check them
	@scripts/build.sh

ci: ## All that has to pass before a change lands
	@.ci/run

clean: ## Remove everything the targets made
	rm -rf .venv .venv-airflow2 .venv-lowest .venv-newest .venv-package .venv-warehouses .venv-distributed .venv-bench .venv-docs .tools .demo .cache dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
