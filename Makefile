# Every target makes .venv and installs what it needs, so each works on a machine with nothing but Python.

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PACKAGING := setup.cfg pyproject.toml constraints.txt
VLLM := .venv-vllm
MODEL := $(CURDIR)/$(VLLM)/smollm2-135m-instruct

.PHONY: demo test test-vllm quality style bench clean

demo: .venv/train  ## the whole method on databases of its own with a tiny model, offline, in minutes
	HF_HUB_OFFLINE=1 $(BIN)/excot demo --out runs/demo

test: .venv/dev  ## all tests, offline
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-vllm: $(VLLM)/ready  ## a real vLLM on this machine's CPU, with a small model: in process, and its server
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 EXCOT_VLLM_MODEL=$(MODEL) $(VLLM)/bin/python -m pytest tests/test_vllm.py

quality: .venv/dev  ## what must hold before a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: .venv/dev  ## mend what can be mended mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev  ## how fast and how right, beside peers, in one run
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

clean:
	rm -rf .venv $(VLLM) runs build *.egg-info

.venv/base: $(PACKAGING)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

# torch by its exact version first: a range would bring CUDA's packages along.
.venv/train: .venv/base
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[train]'
	touch $@

.venv/dev: .venv/train
	$(PIP) --editable '.[train,deepspeed,metric,app,ray,dev]'
	touch $@

# A folder of its own: vLLM wants older versions than training does. Nothing is compiled but what is imported.
$(VLLM)/ready: constraints-vllm.txt tests/vllm_model.py
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--requirement constraints-vllm.txt
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(VLLM)/bin/python tests/vllm_model.py $(MODEL)
	touch $@
