#!/usr/bin/env bash
# Measures emofuse and PyTorch on a GPU in at most ten minutes and without a network; writes JSON for results/gpu.json.
#
#   make gpu-wheels                                      # once, on a machine with a network: fills the folder .whl
#   benchmarks/gpu.sh --output=gpu.json                  # on the GPU machine, in a copy of this directory with .whl
#   benchmarks/gpu.sh --dry --output=dry.json            # tiny sizes, on any machine (make gpu-dry)
#
# It is written for Python 3.12, jax 0.11.2 and CUDA 13, which must be installed, as must PyTorch for the peers;
# benchmarks/gpu_wheels.txt lists the rest. PYTHON and WHEELS choose another interpreter and folder.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels=${WHEELS:-.whl}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Only what is missing, into a folder of its own and without dependencies: a wheel must neither change the image's
# CUDA packages nor hide a newer version there.
if [ -d "$wheels" ]; then
  mapfile -t missing < <("$python" benchmarks/missing_wheels.py "$wheels")
  if [ "${#missing[@]}" -gt 0 ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" "${missing[@]}"
  fi
fi

export PYTHONPATH="$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1                   # a command that is stopped shows what it has printed
export NPROC=${NPROC:-16}                   # as in the Makefile
# The seconds of the installation count: SECONDS is bash's clock since the start of this script.
"$python" -m benchmarks.gpu --workdir="$work" --elapsed_seconds="$SECONDS" "$@"
