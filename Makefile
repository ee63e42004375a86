# Plumbline: `make run` and `make test` are all that a fresh machine needs.
# Environments and caches live in .venv and .cache; `make clean` removes them.

# The first Python 3.11 or newer that can create environments.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$python && break; done)
# Byte code is made of what is imported, and not of every file that there is.
PIP_INSTALL = -m pip install --no-compile --quiet --disable-pip-version-check
PACKAGES = $(wildcard core components app)
# Workers of pytest share two cores: one thread each inside the numeric libraries, and one
# worker more, since a test with a browser waits as long as it works.
PYTEST = NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest
WORKERS = -n 3 --dist loadgroup
# What runs every line of the kernels, and can do so without compiling them.
KERNEL_TESTS = tests/test_softmax.py tests/test_temperature_grid.py tests/test_metrics*.py

# Compiled kernels are kept in the repository's own cache.
export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba
# So is byte code, whatever the machine says: else every process compiles every module.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lint format bench bench-calibrators test-slow stress coverage \
	test-minimum warm-up kernels browser lock clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: .cache/warm ## Open the app on the sample, or on FILE=path (PLUMBLINE_HEADLESS=1: no browser)
	@if [ -n "$$FILE" ]; then \
		[ -e "$$FILE" ] || { echo "FILE=$$FILE: there is no such file." >&2; exit 2; }; \
		case "$$FILE" in /*) ;; *) FILE="$$PWD/$$FILE" ;; esac; \
		export PLUMBLINE_FILE="$$FILE"; \
	fi; \
	if [ -n "$$CI$$PLUMBLINE_HEADLESS" ]; then export STREAMLIT_SERVER_HEADLESS=true; fi; \
	exec .venv/bin/python -m app.serve --server.address 127.0.0.1 \
		--server.showEmailPrompt false --browser.gatherUsageStats false

test: browser .cache/kernels ## Run every test but the slow ones, in a real browser too
	$(PYTEST) $(WORKERS) --durations=40 --durations-min=3

lint: .venv/.test ## Check format, lint and types
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy $(PACKAGES)

format: .venv/.test ## Format the code and apply the safe fixes
	.venv/bin/python -m ruff check --fix-only .
	.venv/bin/python -m ruff format .

bench: .venv-peers/.bench ## Run the benchmarks beside their peers; write results.md and the figure
	PLUMBLINE_BENCH_WRITE=1 .venv-peers/bin/python -m pytest tests/benchmarks -m benchmark

bench-calibrators: .venv-peers/.bench ## Rank every calibrator on 50 problems; METHODS=ids PROBLEMS=words
	PYTHONPATH=.:tests .venv-peers/bin/python -m benchmarks.rank_calibrators \
		--methods "$(METHODS)" --problems "$(PROBLEMS)"

test-slow: .venv/.test ## Run the simulations, and all that takes turns in make test
	$(PYTEST) $(WORKERS) -m "slow and not benchmark"

stress: .venv/.test ## Run eight threads over all kernels for 20 seconds
	PLUMBLINE_STRESS_SECONDS=20 .venv/bin/python -m pytest tests/test_softmax.py -k eight_threads

coverage: .venv/.test ## Measure branch coverage of core, the kernels' as plain Python
	$(PYTEST) $(WORKERS) --cov --cov-report= -m "not browser and not slow and not benchmark"
	NUMBA_DISABLE_JIT=1 $(PYTEST) $(WORKERS) --cov --cov-append --cov-fail-under=95 \
		--cov-report=term-missing:skip-covered -m "not jit and not slow" $(KERNEL_TESTS)

test-minimum: .venv-minimum/.test ## Run the tests on the lowest versions that requirements.txt allows
	NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 .venv-minimum/bin/python -m pytest $(WORKERS) \
		-m "not browser and not slow and not benchmark"

warm-up: .cache/warm ## Compile the kernels of the first page

kernels: .cache/kernels ## Compile the kernels that the tests call

browser: .venv/.test ## Find a Chromium for the tests, or get one
	.venv/bin/python tests/get_browser.py

lock: ## Write tests/constraints.txt anew from the newest versions allowed
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python $(PIP_INSTALL) -r tests/requirements.txt
	head -2 tests/constraints.txt > .venv-lock/lock
	.venv-lock/bin/python -m pip freeze >> .venv-lock/lock
	mv .venv-lock/lock tests/constraints.txt && rm -rf .venv-lock

clean: ## Remove environments, caches and reports
	rm -rf .venv .venv-minimum .venv-lock .venv-peers .cache .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .benchmarks .coverage htmlcov test-results
	find $(wildcard app components core sample_data tests) -name __pycache__ -prune -exec rm -rf {} +

# Environments. The stamp files say which requirements are installed.
.venv/bin/python .venv-minimum/bin/python .venv-peers/bin/python:
	@[ -n "$(PYTHON)" ] || { [ "$$(id -u)" = 0 ] && apt-get update && apt-get install -y python3-venv; } \
		|| { echo "Plumbline needs Python 3.11 or newer with its venv module (python3-venv)." >&2; exit 1; }
	python="$(PYTHON)"; $${python:-python3} -m venv $(@D:/bin=)

.venv/.run: requirements.txt tests/constraints.txt | .venv/bin/python
	.venv/bin/python $(PIP_INSTALL) -r requirements.txt -c tests/constraints.txt
	@touch $@

.venv/.test: tests/requirements.txt .venv/.run
	.venv/bin/python $(PIP_INSTALL) -r tests/requirements.txt -c tests/constraints.txt
	@touch $@

.venv-minimum/.test: requirements.txt tests/requirements.txt tests/constraints.txt | .venv-minimum/bin/python
	sed 's/>=\([^,]*\),.*/==\1/' requirements.txt > .venv-minimum/minimum.txt
	.venv-minimum/bin/python $(PIP_INSTALL) -r tests/requirements.txt -c .venv-minimum/minimum.txt
	@touch $@

.venv-peers/.bench: requirements.txt tests/requirements.txt tests/benchmarks/requirements.txt tests/constraints.txt | .venv-peers/bin/python
	.venv-peers/bin/python $(PIP_INSTALL) -r tests/benchmarks/requirements.txt -c tests/constraints.txt
	@touch $@

.cache/warm: $(wildcard core/kernels.py core/kernels/*.py) .venv/.run
	.venv/bin/python -m app warm-up
	@mkdir -p $(@D) && touch $@

.cache/kernels: $(wildcard core/kernels/*.py) tests/compile_kernels.py .venv/.test
	NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 .venv/bin/python -m tests.compile_kernels
	@mkdir -p $(@D) && touch $@
