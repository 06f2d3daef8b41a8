#!/bin/bash
# Everything that only a GPU can show, on one card, without network, in at most nine minutes; prints the table that docs/log.md keeps.
#
#   bash benchmarks/gpu.sh [--small] [--only parity,attention] [--minutes 9] [-o DIR]
#
# Any Python that has torch, and this repository's packages (pyproject.toml, without extras). On a machine whose image has torch, transformers,
# torchmetrics and the rest of the common ones, these wheels are what is likely missing (`pip download --no-deps`):
#   lightning lightning-utilities pytorch-lightning jsonargparse omegaconf antlr4-python3-runtime typeshed-client docstring-parser
#   diffusers webdataset torchdata av soundfile ftfy jiwer rapidfuzz wadler-lindig
# --small rehearses all of it on a CPU at tiny sizes: no part is left out, and its figures mean nothing.
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD/src:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
