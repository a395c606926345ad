# make quickstart   install, train a small detector, evaluate it and draw pictures
# make test         install, check the style and run the tests that are not slow
# make test-slow    the slow tests: compilation, several processes, kills
# make test-all     all tests
# make gpu          test and measure on a GPU, in at most 20 minutes, and write output/gpu/report.md
# make lint         check the style alone
# make docs         build the documentation site into output/site, where a broken link is an error
# make install      install alone
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PYTEST  = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile
STAMP   = $(VENV)/.installed

.PHONY: install quickstart lint test test-slow test-all gpu docs
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else "sn2fpn needs Python >= 3.10, found %d.%d: make PYTHON=/path/to/python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@$(BIN)/python -c 'import torch, torchvision; torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)' \
	  || { echo 'torch and torchvision do not fit together: install a matching pair into $(VENV), then make install'; exit 1; }
	@touch $@

quickstart: install
	$(BIN)/python train_net.py --engine native --config-file configs/quick/faster_rcnn_R18_sni_shapes.yaml

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check --quiet . || { echo 'some files are not formatted: run `ruff format .`'; exit 1; }

test: lint
	$(PYTEST) -m 'not slow'

test-slow: install
	$(PYTEST) --no-loadscope-reorder -m slow  # in the order of tests/conftest.py

test-all: lint
	$(PYTEST)

gpu:  # an environment that exists is taken as it is, because a machine with a GPU may have no network
	@test -x $(BIN)/python || $(MAKE) install
	$(BIN)/python tools/gpu_report.py

docs: install
	@$(BIN)/python -c 'import mkdocs, material, mkdocstrings, latex2mathml' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'the site is in output/site/index.html; its search needs a server: $(BIN)/python -m http.server -d output/site'
