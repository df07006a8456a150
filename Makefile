# `make quickstart` runs the main job on the embedded corpus; `make test` runs the tests. Both set themselves up.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   ?= .venv
RUNS   ?= runs
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export GAPLAW_CACHE ?= $(CURDIR)/.cache

DOCS   := $(VENV)-docs

.PHONY: quickstart test test-all check docs notebooks figure bowl coverage clean

$(READY): requirements.txt setup.py setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "gaplaw needs Python 3.11 or newer: none found on PATH (set PYTHON=/path/to/python)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# `fit` and `choose` end with 3 when the law refuses to answer: the page then says so, and why.
quickstart: $(READY)
	$(BIN)/gaplaw run experiments/quickstart.py --out $(RUNS)/quickstart
	$(BIN)/gaplaw fit $(RUNS)/quickstart || test $$? -eq 3
	$(BIN)/gaplaw choose $(RUNS)/quickstart/law.json --student 2k --teachers 900,1.5k,3.5k,6k,14k,24k || test $$? -eq 3
	$(BIN)/gaplaw report $(RUNS)/quickstart

test: $(READY)
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

test-all: $(READY)
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m "slow or not slow"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# The documentation in site/, from docs/ and the docstrings (mkdocs.yml). A warning is an error; --quiet would hide it.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/.ready: requirements-docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

# Run the notebooks on the committed example and store their outputs in them.
notebooks: $(READY)
	$(BIN)/python -m tests.notebook_run

# The figure at the top of README.md, and the bowl of docs/glossary.md.
figure: $(READY)
	$(BIN)/python -c "import gaplaw.report; run = 'experiments/results/quickstart'; \
	gaplaw.report.student_loss(gaplaw.read(run), gaplaw.load_law(run + '/law.json')).savefig('docs/quickstart.png', dpi=111)"

bowl: $(READY)
	$(BIN)/python -m gaplaw.report.bowl experiments/results/quickstart docs/bowl.svg

coverage: $(READY)
	$(BIN)/python -m gaplaw.law.simulation.coverage --workers 2

clean:
	rm -rf $(VENV) $(DOCS) .cache site
