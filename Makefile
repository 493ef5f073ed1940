# Only Python >= 3.11 and make are presumed; everything else is installed into .venv from the hashed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a test process: two of them side by side are faster than two that fight for two cores.
WORKERS ?= 2
# The seed of `make claims`.
SEED ?= 0
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1

.PHONY: help env demo test lint format claims bench docs lock clean

help:
	@echo "make demo    install, run every paper at smoke scale, print the verdicts"
	@echo "make test    the whole test suite          make lint    style, types, layers"
	@echo "make claims  judge the claims at laptop scale and update the scorecard (another seed beside it: SEED=1)"
	@echo "make bench   ours beside the peers          make docs    the documentation site in site/"

env: $(VENV)/.complete

$(VENV)/.complete: requirements.lock requirements-build.lock requirements-data.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"Gradatim needs Python 3.11 to 3.13, {sys.executable} is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
# --no-compile: Python compiles what is imported when it is; pip would take half a minute for all the rest.
	@echo "Installing the locked requirements into $(VENV) (up to a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-build.lock
# uv does it in a fifth of pip's time; pip knows of an index or a proxy that only pip was told of.
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --require-hashes -r requirements.lock 2> /dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
# Packages wanted for their data alone, without what they require; built by the setuptools of the lock, not by any newer one.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps --no-build-isolation --use-pep517 -r requirements-data.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-build-isolation -e .
	@touch $@

demo: env
	$(BIN)/gradatim run --all --scale smoke --workers $(WORKERS)

# In the order of the folders: xdist would begin with the files of many tests, and end with the longest, one worker idle.
test: env
	NPROC=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --doctest-modules tests gradatim

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

claims: env
	$(BIN)/python -m pytest -m laptop tests
	$(BIN)/gradatim run --all --scale laptop --seed $(SEED) --update-scorecard

bench: env
	$(BIN)/python benchmarks/run.py

docs: env
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

# Needs uv; writes what pyproject.toml asks for, for all supported Pythons at once, without naming an index.
lock:
	uv pip compile --universal --generate-hashes --all-extras --group dev --python-version 3.11 --no-header -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .venv-* .cache site dist
