# make demo  everything from nothing: install, demo corpus, prepare, train, evaluate, report, export, predict
# make test  everything that CI checks
# make chaos, make fuzz  what a test holds in short, at length: results/chaos.json, results/fuzz.json
# make coverage, make mutation  what the suite reaches, and what it would see: results/coverage.txt, results/mutation.json
# make gpu-wheels; make gpu-dry  what benchmarks/gpu.sh brings to a GPU machine without a network; the script in small
# make upgrade-check [TESTS=tests/unit/ops]  the same under the newest and the lowest dependencies that are allowed
# make audit, make licences  known vulnerabilities; THIRD_PARTY.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# jax 0.10 deadlocks on few cores when several fake CPU devices run collectives back to back;
# NPROC sizes XLA's thread pool and must be set before Python starts.
export NPROC = 16
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
SEED ?= 0
TESTS ?=
PYTEST = -m pytest -m "not long" -n 2 --dist loadfile --no-loadscope-reorder
SUITE = $(PYTEST) $(TESTS)

.PHONY: demo test lint types short-tests test-long coverage chaos fuzz mutation install-dev onnx peers gpu-dry gpu-wheels upgrade-check upgrade-newest upgrade-lowest audit licences clean

$(BIN)/.installed-demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[prep,report,serve]'
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

test: lint types short-tests

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/python -m mypy

short-tests: install-dev
	$(BIN)/python $(SUITE)

test-long: install-dev
	$(BIN)/python -m pytest -m long

# Of the two packages, by the suite; child processes count, but those that are killed leave data of no use.
# Left out is a test under which coverage's own files may not grow either.
coverage: install-dev
	$(BIN)/python $(PIP_INSTALL) 'coverage>=7.10,<8'
	$(BIN)/python -m coverage run $(PYTEST) --deselect tests/robustness/chaos/test_disk_limits.py::test_files_that_may_not_grow
	-$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report > results/coverage.txt
	@tail -1 results/coverage.txt

# 100 kills; 10,000 damaged inputs (goes on where it was stopped).
chaos: install-dev
	$(BIN)/python -m tests.robustness.chaos.run --kills=100 --output=results/chaos.json

fuzz: install-dev
	$(BIN)/python -m tests.robustness.fuzz.run --output=results/fuzz.json --inputs=10000 --workers=2

# Some 1,000 small mistakes in ops/ and losses/, one at a time (goes on where it was stopped).
mutation: install-dev
	$(PYTHON) -m venv .venv-mutation
	.venv-mutation/bin/python $(PIP_INSTALL) 'cosmic-ray>=8.7,<9'
	$(BIN)/python -m tests.support.mutation.run --cosmic_ray=.venv-mutation/bin --output=results/mutation.json

upgrade-check: upgrade-newest upgrade-lowest

# In environments of their own, made anew; the lists of versions lie beside their python.
upgrade-newest: install-dev
	rm -rf .venv-newest && $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy=eager -e '.[dev,serve]'
	$(BIN)/python -m pip freeze --exclude-editable > .venv-newest/ordinary.txt
	.venv-newest/bin/python -m pip freeze --exclude-editable > .venv-newest/newest.txt
	@echo 'ordinary environment (<) and newest (>):'; diff .venv-newest/ordinary.txt .venv-newest/newest.txt || true
	.venv-newest/bin/python $(SUITE)

# pip tries versions of what these need for a quarter of an hour, uv finds them in seconds.
upgrade-lowest:
	rm -rf .venv-lowest && $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP_INSTALL) 'uv>=0.9,<1'
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev,serve]'
	.venv-lowest/bin/uv pip list --quiet --python .venv-lowest/bin/python
	.venv-lowest/bin/python $(SUITE)

# Status 1 on findings; where pip-audit's service is out of reach, a line says so.
audit: install-dev
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python $(PIP_INSTALL) pip-audit
	.venv-audit/bin/python tests/support/upgrade/audit.py $(BIN)/python

# Every extra but torch's and those of GPUs.
licences:
	$(MAKE) onnx VENV=.venv-licences
	.venv-licences/bin/python $(PIP_INSTALL) -e '.[beam,plan]'
	.venv-licences/bin/python -m tests.support.upgrade.licences > THIRD_PARTY.md

peers: $(BIN)/.installed-bench
	$(BIN)/python -m tests.peers.make

# benchmarks/gpu.sh on this machine: every suite, tiny; the rates mean nothing. Compiling is what takes time.
gpu-dry: $(BIN)/.installed-demo
	PYTHON=$(BIN)/python XLA_FLAGS=--xla_backend_optimization_level=0 \
		benchmarks/gpu.sh --dry --budget_seconds=1200 --output=runs/gpu_dry.json

# For Python 3.12 on x86-64, into .whl; CUDA=1: also jax and PyTorch with their CUDA packages, several GB.
# pip compares the number of a manylinux tag exactly.
WHEEL_TARGET = --only-binary=:all: --python-version=3.12 --implementation=cp --platform=manylinux2014_x86_64 \
	--platform=manylinux1_x86_64 $(foreach n,5 12 17 24 27 28 31 34 35 39,--platform=manylinux_2_$(n)_x86_64)
gpu-wheels:
	$(PYTHON) -m pip download --no-deps $(WHEEL_TARGET) -d .whl -r benchmarks/gpu_wheels.txt
	$(PYTHON) -m pip wheel --no-deps -w .whl promise==2.3
	$(if $(CUDA),$(PYTHON) -m pip download $(WHEEL_TARGET) -d .whl -r benchmarks/gpu_wheels_cuda.txt)

clean:
	rm -rf $(VENV) .venv-* runs build dist *.egg-info
