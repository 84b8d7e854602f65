# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The oldest Python that is here, of those that pyproject.toml allows.
PYTHON_OLDEST ?= $(firstword $(foreach python,python3.10 python3.11 python3.12 python3.13,$(shell $(python) -c "print('$(python)')" 2>/dev/null)) $(PYTHON))
OLDEST := .venv-oldest

TESTS := -m pytest -n 2 --dist worksteal

.PHONY: demo test test-oldest torture fuzz parity catalogue bench-extract bench-heads bench-finetune docs lint clean

demo: $(VENV)/.installed
	$(BIN)/bottleneck demo

# In two processes, of one thread each: threads of OpenMP that share a core wait for each other.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python $(TESTS)

# The same with the oldest versions that pyproject.toml allows, in an environment of their own.
test-oldest: $(OLDEST)/.installed-dev
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(TESTS)

# The long form of the tests that break things: every call of every job in every way, and hundreds of kills.
torture: $(VENV)/.installed-dev
	BOTTLENECK_TORTURE=1 $(BIN)/python -m pytest -rP tests/cache/test_crash.py

# Half a million mutated files through the readers of images, shards, runs, weights, tables and memos (two minutes). What
# is found lies in fuzz-findings/: `python -m tests.fuzz --replay fuzz-findings/...` reads one file again.
fuzz: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

# Every classifier of torchvision, and 45 models of timm, against torchvision and timm themselves (half an hour).
parity: $(VENV)/.installed-dev
	BOTTLENECK_PARITY=1 $(BIN)/python -m pytest -rP tests/backbones/test_parity.py

# The table of models, for the installed versions of torchvision and timm (some minutes).
catalogue: $(VENV)/.installed-dev
	$(BIN)/python -m bottleneck.backbones.catalogue_maker

# Extraction beside the plain loop of PyTorch and img2vec, which this installs (some minutes).
bench-extract: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet img2vec-pytorch
	$(BIN)/python benchmarks/bench_extract.py

# Searching heads beside scikit-learn's GridSearchCV (half an hour, nearly all of it scikit-learn's).
bench-heads: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_heads.py

# Fine-tuning from a head that was handed back beside the tutorials' way (ten minutes).
bench-finetune: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_finetune.py

# The manual, in site/: a warning is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m mkdocs build --strict --quiet

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[openvino]'
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
