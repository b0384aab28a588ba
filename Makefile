# Everything happens inside this folder: .venv (environment), .demo (Airflow's home), .cache.
.DEFAULT_GOAL := help
.PHONY: help demo ui test test-long test-airflow2 test-lowest matrix check format bench bench-report build ci clean

READY := .venv/.ready
PY := .venv/bin/python
# A tool of the user's environment must not steer ours.
unexport PYTHONPATH VIRTUAL_ENV AIRFLOW_HOME

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): uv.lock pyproject.toml scripts/setup.sh
	@echo "Making the environment in .venv (once)..."
	@scripts/setup.sh
	@touch $@

demo: $(READY) ## Run the example DAGs in Airflow against a local Regal, and show what it holds then
	@exec $(PY) -m scripts.demo

ui: $(READY) ## The same, and keep Airflow's UI and the local Regal's pages open until Ctrl-C
	@exec $(PY) -m scripts.ui

test: $(READY) ## Run the tests
	@$(PY) -m pytest -n 2 -m "not services and not slow and not long" tests

test-long: $(READY) ## Run the tests that take minutes: many kills, many rows
	@$(PY) -m pytest -n 2 -m long tests

test-airflow2: ## Run the tests on the oldest supported Airflow (2.11)
	@UV_PROJECT_ENVIRONMENT=.venv-airflow2 scripts/setup.sh --no-group airflow3 --group airflow2
	@.venv-airflow2/bin/python -m pytest -n 2 -m "not services and not slow and not long" tests

test-lowest: $(READY) ## Run the tests on Airflow 2.11 and the lowest versions of our own requirements, and measure coverage
	@scripts/test_lowest.sh

matrix: $(READY) ## Install the wheel beside each supported Airflow as it was released, and run a DAG; VERSIONS="3.0.6 3.1.8" for some
	@exec $(PY) -m scripts.install_matrix $(VERSIONS)

check: $(READY) ## Lint, types, architecture and docs
	@scripts/check.sh

format: $(READY) ## Format the code
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

bench: ## Measure speed, memory and pacing; PARTS="whole_path pacing" for some of it, FULL=1 as for docs/performance.md
	@UV_PROJECT_ENVIRONMENT=.venv-bench scripts/setup.sh --group bench --group services
	@.venv-bench/bin/python -m benchmarks $(if $(FULL),--full) $(PARTS)

bench-report: ## Make the tables and pictures of docs/performance.md from the last results
	@UV_PROJECT_ENVIRONMENT=.venv-bench scripts/setup.sh --group bench --group services
	@.venv-bench/bin/python -m benchmarks report

build: $(READY) ## Build the wheel and check what is in it
	@scripts/build.sh

ci: ## All that has to pass before a change lands
	@.ci/run

clean: ## Remove everything the targets made
	rm -rf .venv .venv-airflow2 .venv-lowest .venv-bench .tools .demo .cache dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
