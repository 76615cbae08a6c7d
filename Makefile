# `make demo` and `make test` work on a fresh machine with Python 3.11: each makes the environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
#: Rooms whose tests need neither Ray nor a model: a minute.
PURE := tests/test_floors.py tests/base tests/text tests/tokenizer tests/shards tests/model
#: Two processes: one has all tests that start Ray, the other one begins with the rest (tests/conftest.py).
TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: env demo check test test-slow mutants lint docs clean

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: env
	$(BIN)/ctllm demo --once root=out

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

check: lint
	$(BIN)/pytest $(PURE) $(TWO)

test: lint
	$(BIN)/pytest -m 'not slow' $(TWO) --durations=20

test-slow: env
	$(BIN)/pytest -m slow

# A seeded sample of one-line faults in the pure rooms, each run against its tests; half an hour.
mutants: env
	PYTHONPATH=. $(BIN)/python benchmarks/mutants.py

# Into build/site; a broken link, or an option without a description, is an error. `python3 -m http.server -d build/site` shows it.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf out build .mypy_cache .ruff_cache .pytest_cache
