# make demo  everything from nothing: install, demo corpus, prepare, train, evaluate, report, export, predict
# make test  everything that CI checks
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# jax 0.10 deadlocks on few cores when several fake CPU devices run collectives back to back;
# NPROC sizes XLA's thread pool and must be set before Python starts.
export NPROC = 16
SEED ?= 0

.PHONY: demo test test-long install-dev onnx peers clean

$(BIN)/.installed-demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[prep,serve]'
	touch $@

$(BIN)/.installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,serve]'
	touch $@

# The PyTorch peers; on Linux torch brings several GB of CUDA packages unless a CPU build is at hand.
$(BIN)/.installed-bench: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench,dev]'
	touch $@

demo: $(BIN)/.installed-demo
	$(BIN)/python launch/demo.py --output=runs/demo --seed=$(SEED)

install-dev: $(BIN)/.installed-dev

# jax2onnx pins an old orbax: it comes without its dependencies, into the environment of `make demo` and `make test`.
onnx: install-dev
	$(BIN)/pip install --quiet --disable-pip-version-check 'onnx>=1.20,<2' 'onnx-ir>=0.2.1,<0.3' 'onnxruntime>=1.24,<2'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'jax2onnx>=0.17,<0.18'

test: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile --no-loadscope-reorder

test-long: install-dev
	$(BIN)/python -m pytest -m long

peers: $(BIN)/.installed-bench
	$(BIN)/python -m tests.peers.make

clean:
	rm -rf $(VENV) runs build dist *.egg-info
