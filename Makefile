# `make demo` and `make test` create all that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The oldest installed Python that pyproject.toml allows.
PYTHON_OLDEST ?= $(firstword $(foreach python,python3.10 python3.11 python3.12 python3.13,$(shell $(python) -c "print('$(python)')" 2>/dev/null)) $(PYTHON))
OLDEST := .venv-oldest

# Tests write thousands of small files: in memory, if there is room for 4 GB, which saves a third of the time.
SCRATCH ?= $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 4e6 { print "/dev/shm" }')
IN_MEMORY := $(if $(SCRATCH),PYTEST_DEBUG_TEMPROOT=$(SCRATCH))
# Two processes more than two cores, since some tests wait for other processes or for a browser.
WORKERS ?= 4
TESTS := -m pytest -n $(WORKERS) --dist worksteal

# pytest and the processes that tests start reuse compiled modules, even if the environment forbids to write them.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-oldest torture fuzz parity catalogue bench-extract bench-heads bench-finetune bench-audit page pictures docs lint clean

demo: $(VENV)/.installed
	$(BIN)/bottleneck demo

# Run processes with one thread each, because OpenMP threads that share a core wait for each other.
test: $(VENV)/.installed-dev
	$(IN_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python $(TESTS)

# Run the same tests with the oldest versions that pyproject.toml allows, in a separate environment.
test-oldest: $(OLDEST)/.installed-dev
	$(IN_MEMORY) OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(TESTS)

# Run the long form of the crash tests: every call of every job fails in every way, and hundreds of processes are killed.
torture: $(VENV)/.installed-dev
	BOTTLENECK_TORTURE=1 $(BIN)/python -m pytest -rP tests/cache/test_crash.py

# Feed half a million mutated images, shards, runs, weights, tables and memos to their readers (two minutes). Findings are
# saved in fuzz-findings/; `python -m tests.fuzz --replay fuzz-findings/...` reads one of them again.
fuzz: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

# Compare the features of all torchvision classifiers and 45 timm models with those of torchvision and timm (half an hour).
parity: $(VENV)/.installed-dev
	BOTTLENECK_PARITY=1 $(BIN)/python -m pytest -rP tests/backbones/test_parity.py

# Regenerate the table of models for the installed versions of torchvision and timm (some minutes).
catalogue: $(VENV)/.installed-dev
	$(BIN)/python -m bottleneck.backbones.catalogue_maker

# Compare extraction with a plain PyTorch loop and with img2vec, which is installed first (some minutes).
bench-extract: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet img2vec-pytorch
	$(BIN)/python benchmarks/bench_extract.py

# Compare the search for a head with scikit-learn's GridSearchCV (half an hour, nearly all of it in scikit-learn).
bench-heads: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_heads.py

# Compare fine-tuning from a fitted head with the loop of PyTorch's tutorial (ten minutes).
bench-finetune: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_finetune.py

# Measure audit, familiarity, prediction sets and suggestions on digits and solar cells (about half an hour). IMAGES=FOLDER
# adds the ants and bees of PyTorch's tutorial.
bench-audit: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet elpv-dataset
	$(BIN)/python -W ignore benchmarks/bench_audit.py --work bench-audit $(if $(IMAGES),--images $(IMAGES))

# Build the explorer's page in bottleneck/exploring/static/ from its TypeScript; needs Node, which users do not.
page:
	cd bottleneck/exploring/page && npm ci --no-audit --no-fund --silent && npm run --silent check && npm run --silent build

# Make the pictures of the README again, from pages that this version makes (half a minute); needs Chromium.
pictures: $(VENV)/.installed-dev
	$(BIN)/python docs/pictures.py

# Build the manual in site/; a warning is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m mkdocs build --strict --quiet

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[explore,openvino]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(OLDEST)/.installed-dev: pyproject.toml .ci/lower_bounds.py
	test -x $(OLDEST)/bin/python || $(PYTHON_OLDEST) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --editable .
	$(OLDEST)/bin/python .ci/lower_bounds.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[dev,parquet]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) demo build site *.egg-info
