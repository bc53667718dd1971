#!/usr/bin/env bash
# Runs the operator tests of this build, without rebuilding, under a second PyTorch: by default the CPU
# build of 2.13.0. The compiled files are those of the working tree, made with the PyTorch of the first argument.
#
#   tests/second_torch.sh PYTHON [REQUIREMENT] [VENV]
set -euo pipefail
python=$1 requirement=${2:-torch==2.13.0} venv=${3:-build/second-torch}
cd "$(dirname "$0")/.."

test -x "$venv/bin/python" || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet "$requirement" numpy scipy scikit-learn safetensors matplotlib rich pytest hypothesis

for each in "$python" "$venv/bin/python"; do
    PYTHONPATH=. "$each" - <<'END'
import torch
import difficulty_prune as dp
assert dp.ops.missing_kernels() is None, dp.ops.missing_kernels()
from difficulty_prune import _host
print(f"running torch {torch.__version__}, built with torch {_host.build_facts()['torch']}")
END
    PYTHONPATH=. "$each" -m pytest -q tests/ops tests/test_laws.py \
        tests/scores/test_{logit_scores,temporal,vog}.py tests/frozen/test_vog_checkpoints.py \
        tests/tracker/test_{gradient_options,gradient_state,inputs,watch,windows}.py
done
