# The commands that CONTRIBUTING.md and CI use. `make demo` and `make test` do all the set-up themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test setup lint docs lock faults bench ci clean

demo: setup
	@$(BIN)/capistream demo $(ARGS)

test: setup
	@echo "Running the tests (about 5 minutes; the first run fetches Apache Kafka, 45 MB, once)"
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)
	@echo "All passed. Next: make demo, or make lint before you commit."

setup: $(VENV)/.done

# The stamp depends on what is installed, so this runs again only when that changes. The lock file holds hashes.
$(VENV)/.done: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with make PYTHON=...")'
	@echo "Making the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies (a minute or two, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup ## write the generated pages of docs/ and the Grafana board anew
	$(BIN)/python docs/generate.py
	$(BIN)/python deploy/grafana/board.py

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

lock: setup ## resolve the dependencies anew; the image installs the second file: no extras, the same versions
	$(LOCK) --all-extras --upgrade pyproject.toml -o requirements.lock
	rm -f requirements.runtime.lock
	$(LOCK) --constraint requirements.lock pyproject.toml -o requirements.runtime.lock

N ?= 5
SEED ?= 1
faults: setup ## N runs of the fault harness from SEED on, a line each in docs/reliability.jsonl
	$(BIN)/python -m tests.faults --runs $(N) --seed $(SEED) $(ARGS); status=$$?; $(BIN)/python docs/generate.py; exit $$status

BENCHES = dedup kafka_streams pipeline latency soak scale collector sink_meta sink_ga4 state view backlog isolation
bench: setup ## all of them, into docs/performance.md; ARGS=--quick for a short look that writes nothing
	@for bench in $(BENCHES); do $(BIN)/python bench/$$bench.py $(or $(ARGS),--write) || exit 1; done

ci:
	@bash .ci/run

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
