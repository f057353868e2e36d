# Two commands do everything from nothing: `make demo` and `make test`. They need Python 3.11+ and make.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-all lint format wheel check baseline bench bench-short clean

help:
	@echo "make demo      simulate a data set, run all decoders on seen and imagined images of one subject, compare them"
	@echo "make test      run the tests (a few minutes on two cores, no GPU, no downloads)"
	@echo "make test-all  run the long tests too"
	@echo "make lint      formatting, lint, types, import contracts"
	@echo "make wheel     build the wheel and try it in an empty environment"
	@echo "make check     compare the demo with the committed baseline; fails on a regression"
	@echo "make bench     measure every ratio on this machine and put the table into docs/performance.md (about 20 minutes)"
	@echo "make baseline  regenerate the committed simulated baseline, the table in the README and the gallery"

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "nsdbench needs Python 3.11 or newer; none was found"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@echo "installing the locked dependencies into $(VENV) (several GB with torch; once)"
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	$(BIN)/nsdbench run --model mindeye2,mindeye1,brain_diffuser,takagi,icnn,ridge,mean_image,random_image --subject 1 --split both --dataset sim --cache demo/cache --out demo/runs
	$(BIN)/nsdbench compare demo/runs

# One thread per test process: two processes with two threads each are slower on two cores than two with one.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q

test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q -m "slow or not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p nsdbench
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --wheel --sdist
	$(BIN)/python tests/smoke_wheel.py

# The data set, its cache and the runs of the demo stay below ./demo, so that `make check` can reuse them.
check: demo
	$(BIN)/nsdbench check demo/runs --baseline leaderboards/sim_items.parquet

baseline: demo
	$(BIN)/python .ci/baseline.py demo/runs
	$(BIN)/python .ci/readme.py demo/runs
	$(BIN)/python .ci/gallery.py demo/runs demo/cache

bench: $(READY)
	$(BIN)/python benchmarks/all.py --write docs/performance.md

# Tiny sizes on one thread: shows that every benchmark runs; the figures mean nothing.
bench-short: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/all.py --short

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache *.egg-info
