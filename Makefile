# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
FOLDER ?= runs/bench
BIN := $(VENV)/bin
# Two workers: the suite is sized for two cores.
BENCHMARKS := transport collectives processes transition training compiling estimators sweep secure compressors circuits plans
# Neighbouring tests share compiled programs: each worker takes a half, and then what is left over.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-statistics test-matrix test-further test-all golden lint format bench docs clean

demo: $(VENV)/.ready
	$(BIN)/jaxqring train --config configs/demo.toml

# The lanes: see tests/conftest.py. ARGS go to pytest: make test-matrix ARGS="--part 3/8".
test: $(VENV)/.ready
	$(PYTEST) $(ARGS)

test-statistics: $(VENV)/.ready
	$(PYTEST) -m statistics $(ARGS)

test-matrix: $(VENV)/.ready
	$(PYTEST) -m matrix $(ARGS)

# Both, which is all that `make test` leaves out.
test-further: $(VENV)/.ready
	$(PYTEST) -m "statistics or matrix" $(ARGS)

test-all: $(VENV)/.ready
	$(PYTEST) -m "" $(ARGS)

# What the library gives here, under this version of JAX; one process, which writes one file.
golden: $(VENV)/.ready
	$(BIN)/python -m pytest tests/test_golden.py -m "" --golden

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py --folder $(FOLDER) || exit 1; done

# The site, from its pages, docstrings and tutorials, which run; a warning fails it.
docs: $(VENV)/.ready
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -d docs/_build/doctrees $(ARGS) docs docs/_build/html
	$(BIN)/python tools/check_site.py

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxqring needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,test,bench,docs]'
	@touch $@

clean:
	rm -rf $(VENV) runs .cache docs/_build docs/api .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
