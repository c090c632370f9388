# make demo: the whole job on real data. make test: the tests. Both set up .venv first, with the
# extras in EXTRAS; with "dev,ray" the tests on a local Ray cluster run too, a minute more.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(EXTRAS)

.PHONY: demo test fuzz docs lint contracts types wheel clean

demo: $(INSTALLED)
	$(BIN)/sparsemend demo

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Random networks for two minutes, others every day.
fuzz: $(INSTALLED)
	$(BIN)/python -m pytest --capture no tests/faults/test_fuzz.py --fuzz-seconds 120

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

contracts: $(INSTALLED)
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)
	$(BIN)/mypy

wheel: $(INSTALLED)
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:
	rm -rf $(VENV) dist build site sparsemend-demo

# What the build compiles; a change of it is installed again.
KERNELS := hatch_build.py src/sparsemend/runtime/build.py $(wildcard src/sparsemend/runtime/native/*.[ch])

$(INSTALLED): pyproject.toml constraints.txt $(KERNELS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@
