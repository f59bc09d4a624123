# Every target makes .venv and installs what it needs, so each works on a machine with nothing but Python.

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PACKAGING := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test quality style bench clean

demo: .venv/base  ## the whole chain on a small world of its own, offline
	HF_HUB_OFFLINE=1 $(BIN)/excot demo --out runs/demo

test: .venv/dev  ## all tests, offline
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest

quality: .venv/dev  ## what must hold before a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: .venv/dev  ## mend what can be mended mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev  ## how fast and how right, beside peers, in one run
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

clean:
	rm -rf .venv runs build *.egg-info

.venv/base: $(PACKAGING)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

# torch by its exact version first: a range would bring CUDA's packages along.
.venv/dev: .venv/base
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[train,deepspeed,metric,app,dev]'
	touch $@
