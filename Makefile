# Two commands matter: `make demo` and `make test`. Both build .venv on first use; nothing else is touched.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# make setup INDEX=URL takes everything from that package index; TORCH_INDEX=URL is one more to look in, such
# as the one of CPU wheels: on Linux, torch from the public index brings gigabytes of CUDA libraries.
INDEX       ?=
TORCH_INDEX ?=
PIP    := -m pip install --quiet --disable-pip-version-check \
  $(if $(INDEX),--index-url $(INDEX)) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
TORCH  := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)

.PHONY: help setup demo test smoke floors elsewhere lint bench breadth gpu gpu-dry schema docs clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ \t/'

setup: $(STAMP)  ## build .venv from the pinned constraints

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) $(TORCH) -c constraints.txt
	$(BIN)/python $(PIP) -e '.[dev]' -c constraints.txt
	touch $(STAMP)

demo: setup      ## run the whole chain on embedded real images, to the report, and use what it made
	$(BIN)/rlp pipeline run configs/quickstart.yaml
	$(BIN)/rlp predict artifacts/quickstart/deploy examples/ankle_boot.png

test: setup      ## all tests; no network, no GPU
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

smoke: setup     ## the configs of RL-Pruner's networks, each through the whole chain in few steps; 10 minutes
	$(BIN)/python -m pytest -m smoke tests/test_rlpruner_configs.py tests/bench/test_gpu_run.py

floors:          ## quick tests with the lowest versions that pyproject.toml declares, torch as pinned
	test -x .venv-floors/bin/python || $(PYTHON) -m venv .venv-floors
	$(PYTHON) tools/floors.py > .venv-floors/lowest.txt
	.venv-floors/bin/python $(PIP) \
	  $(TORCH) -r .venv-floors/lowest.txt pytest pytest-timeout hypothesis
	.venv-floors/bin/python $(PIP) --no-deps --editable .
	.venv-floors/bin/python -m pytest -m 'not slow and not smoke and not elsewhere' tests/pipeline tests/faults \
	  tests/stages/export tests/stages/report tests/stages/deploy

elsewhere: setup ## the deploy folder by predict.py alone, Hugging Face Optimum and OpenVINO; fetches them
	$(BIN)/python -m pytest -rs -m elsewhere tests/stages/deploy/test_other_tools.py

lint: setup      ## ruff, and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup     ## our speed against the usual alternatives, ratios in one run
	@for script in slicing_vs_export trace_prune_vs_torch_pruning loader candidates; do \
	  echo "== $$script"; $(BIN)/python tests/bench/$$script.py || exit 1; done

breadth: setup   ## every CNN of torchvision, and of timm where installed: traced, cut, compared
	$(BIN)/python tests/bench/breadth.py $(BREADTH)

gpu: setup       ## all that a GPU is wanted for, side by side, in minutes; GPU="--data DIR --weights DIR"
	$(BIN)/python -P tests/bench/gpu_run.py --out artifacts/gpu $(GPU)

gpu-dry: setup   ## the same on the CPU, tiny
	$(BIN)/python -P tests/bench/gpu_run.py --out artifacts/gpu-dry --dry $(GPU)

schema: setup    ## regenerate configs/schema.json
	$(BIN)/rlp config schema > configs/schema.json

docs: setup      ## regenerate what docs/ and README take from the code
	$(BIN)/python -m tools.make_docs

clean:           ## remove the environment and caches; runs in artifacts/ stay
	rm -rf $(VENV) .venv-floors build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
