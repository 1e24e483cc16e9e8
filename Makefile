# make demo    the main job end to end on real data, a few minutes
# make test    the whole test suite, on all cores; at its end the ten slowest tests
# make test-fast  logs, model, metrics and laws, without what is slow: a minute and a half on two cores
# make check   format, lint, types, tests
# make docs    the pages in docs/ as a site, in site/
# make tables  every table, card and picture anew from the kept records
# make screenshots  the pictures of the page in the browser anew; needs chromium, a few minutes
# make mutants faults planted in the code, and how many the tests notice; hours
# make install .venv with the sr-transformers command, nothing else
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-fast check docs tables screenshots mutants clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python recipes/demo.py

# Each worker computes with one thread. A file is one worker's, so what it prepares is prepared once; files are begun in
# the order of tests/conftest.py, the longest first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder --durations 10

test: install
	$(PYTEST)

# The rooms that start no process and train next to nothing.
FAST := $(addprefix tests/,data evaluation lsrm planning scaling/laws test_figures.py test_fingerprints.py test_house.py \
        test_marks.py test_messages.py test_public.py test_recipe_files.py test_records.py test_reprs.py)

test-fast: install
	$(PYTEST) -m "not slow" $(FAST)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST)

docs: install
	$(BIN)/mkdocs build --strict

tables: install
	$(BIN)/python docs/tables/build.py

screenshots: install
	$(BIN)/python docs/tables/screenshots.py

mutants: install
	$(BIN)/python tests/mutants.py

clean:
	rm -rf $(VENV) runs/demo runs/mutants runs/screenshots
