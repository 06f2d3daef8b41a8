# Each target works as the first command ever run on a fresh clone: whatever it needs, it makes.
SHELL := /bin/bash
PYTHON ?= python3
CONFIG ?= configs/joint.yaml
BIN := .venv/bin
# Else each process of the tests would compile all of CCL anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test pytest slow evaluate smoke fit streams checkpoint lint types ablation ablation-dry bench gpu docs media systems faults faults-smoke

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# The stamp is older than pyproject.toml when a dependency has changed: only then is anything installed.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,eval,world]' && touch $@

setup: .venv/.installed ## create .venv and install

demo: .venv/.installed ## train, generate and score the embedded default, about 8 minutes on 2 cores
	$(BIN)/ccl demo

# Side by side: mypy alone would leave a core idle.
test: .venv/.installed ## install, lint, type-check and test, under 8 minutes
	@$(MAKE) --no-print-directory --jobs 3 lint types pytest

pytest: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations 15 -m "not slow"

slow: .venv/.installed ## the proofs that take long, on real clips and weights in CCL_TEST_DATA
	OMP_NUM_THREADS=2 $(BIN)/pytest -m slow --durations 0 --timeout 1200

SEED ?= 0
faults: .venv/.installed ## kill commands and damage their inputs, by a seed: ten minutes; make faults SEED=7
	$(BIN)/python tests/faults --seed $(SEED)

faults-smoke: .venv/.installed ## each command killed once and each kind of input damaged once, under a minute
	$(BIN)/python tests/faults --seed $(SEED) --rounds 1 --mutants 1 --quick

smoke: .venv/.installed ## the whole way at a tiny size, about a minute
	$(BIN)/ccl demo --smoke

fit: .venv/.installed ## train a config; make fit CONFIG=configs/joint.yaml
	$(BIN)/ccl fit --config $(CONFIG)

SHIPPED := --config configs/joint.yaml --config configs/trainer/checkpoint.yaml
checkpoint: .venv/.installed ## train the model that ships with the package, hours; goes on where it was stopped
	$(BIN)/ccl fit $(SHIPPED) --ckpt_path last && $(BIN)/ccl export runs/embedded -o src/ccl/checkpoints/embedded

STREAMS := $(BIN)/ccl fit --config configs/joint.yaml --ckpt_path last
streams: .venv/.installed ## train the video and the audio stream on the world, each alone and side by side, hours; goes on where it was stopped
	$(STREAMS) --config configs/world/video.yaml && $(STREAMS) --config configs/world/audio.yaml
	$(STREAMS) --config configs/world/both.yaml
	$(STREAMS) --config configs/world/audio.yaml --config configs/world/audio_more.yaml
	$(STREAMS) --config configs/world/video.yaml --config configs/world/video_more.yaml
	$(BIN)/ccl export runs/world-audio-more -o src/ccl/checkpoints/streams/audio
	$(BIN)/ccl export runs/world-video-more -o src/ccl/checkpoints/streams/video

CKPT ?=
evaluate: .venv/.installed ## score a checkpoint on its 200-sample test set; make evaluate CKPT=runs/joint (what ships)
	$(BIN)/ccl evaluate --ckpt $(CKPT)

lint: .venv/.installed ## ruff, style and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/.installed ## mypy on src
	$(BIN)/mypy

bench: .venv/.installed ## ratios against peers, a few minutes
	for name in wan streams interaction loader codec evaluation; do echo "== $$name" && $(BIN)/python benchmarks/$$name.py || exit 1; done

SMALL ?=
gpu: .venv/.installed ## what only a GPU can show, at most nine minutes on one card; make gpu SMALL=1 rehearses it on a CPU
	PYTHON=$(BIN)/python bash benchmarks/gpu.sh $(if $(SMALL),--small --minutes 30) -o runs/gpu

media: .venv/.installed ## what is read of files of every kind, against ffmpeg; rewrites docs/media.md
	$(BIN)/python benchmarks/media.py --write docs/media.md

docs: .venv/.installed ## the site of the docs, in out/site; fails where a link leads nowhere
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]' && $(BIN)/python docs/concepts.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

systems: .venv/.installed ## the systems of the field side by side and with every guidance rule; rewrites docs/systems.md
	$(BIN)/python docs/systems.py

MATRIX ?= table2
JOBS ?= 2
SIZE ?= hour
SIZED = $(if $(SMOKE),smoke,$(SIZE))
ABLATE = $(BIN)/ccl ablate configs/ablation/$(MATRIX).yaml $(if $(filter-out full,$(SIZED)),--config configs/ablation/size/$(SIZED).yaml)
ablation: .venv/.installed ## do a matrix, or go on with it: make ablation MATRIX=guidance JOBS=4; SIZE=full as docs/ablation.md has it, SMOKE=1 tiny
	$(ABLATE) --jobs $(JOBS)

ablation-dry: .venv/.installed ## its runs and rows, and what is left to do
	$(ABLATE) --jobs $(JOBS) --dry
