# Everything runs in .venv, which is made from requirements/dev.txt: pinned, with hashes, and complete, so that no newer
# release of anything can get in (--no-deps).
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.ready

.PHONY: setup demo test lint types unit bench fuzz pyz lock fixtures clean

setup: $(SETUP)

$(SETUP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(SETUP)

fixtures: $(SETUP)
	$(BIN)/python fixtures/images/build.py

## The main job, with its real output: a registry, a pull, an unpack, a run.
demo: fixtures
	BIN=$(BIN) scripts/demo

## Lint, types, architecture, and every test that this machine can run.
test: lint types unit

lint: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(SETUP)
	$(BIN)/mypy

unit: fixtures
	scripts/install-test-tools
	$(BIN)/python -m pytest --cov

bench: fixtures
	$(BIN)/python benchmarks/run.py

## Ten minutes of coverage-guided fuzzing. What it finds is left in build/fuzz; give it a test of its own.
fuzz:
	$(PYTHON) -m venv build/fuzz/venv
	build/fuzz/venv/bin/python -m pip install --quiet --disable-pip-version-check atheris isal zstandard
	cd build/fuzz && for target in entries applier; do \
	  nice venv/bin/python ../../fuzz/unpack.py $$target corpus-$$target -max_len=12000 -max_total_time=300 || exit; \
	done

## dist/ocitool.pyz: ocitool and all that it needs in one file, for this Python and this kind of machine.
pyz: $(SETUP)
	rm -rf build/pyz
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
	  --requirement requirements/dev.txt --dest build/pyz/wheels
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --find-links build/pyz/wheels \
	  --no-build-isolation --no-compile --target build/pyz/packages .
	$(BIN)/python scripts/make_pyz.py build/pyz/packages dist/ocitool.pyz

## Write requirements/dev.txt anew from pyproject.toml (needs uv).
lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --output-file requirements/dev.txt

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* fixtures/images/layout
