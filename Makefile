# make demo    the main job end to end on real data, a few minutes
# make test    the whole test suite
# make check   format, lint, types, tests
# make docs    the pages in docs/ as a site, in site/
# make mutants faults planted in the code, and how many the tests notice; hours
# make install .venv with the sr-transformers command, nothing else
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test check docs mutants clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python recipes/demo.py

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

docs: install
	$(BIN)/mkdocs build --strict

mutants: install
	$(BIN)/python tests/mutants.py

clean:
	rm -rf $(VENV) runs/demo runs/mutants
