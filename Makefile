# `make demo` and `make test` do everything on a fresh machine; the rest are their parts.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Without bytecode every import of torch would compile it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-slow lint format bench bundle docs lock clean

setup: $(VENV)/.complete

$(VENV)/.complete: requirements/build.txt requirements/lock.txt requirements/detectron2.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "The pinned packages need Python 3.11 or newer; try: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --require-hashes -r requirements/build.txt
	$(PY) -m pip install --quiet --require-hashes --no-build-isolation -r requirements/lock.txt
	@# The wheel's tag is Python 3.10's; its compiled part is not needed. It also brings a package
	@# named `tools`, which is none of ours.
	purelib="$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && \
	$(PY) -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.10 --upgrade \
		--target "$$purelib" --require-hashes -r requirements/detectron2.txt && \
	rm -rf "$$purelib/tools"
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(PY) demo/quickstart.py $(IMAGES)

# A test file at a time on every core; more threads would get in each other's way.
test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist loadfile

test-slow: setup
	$(PY) -m pytest -m slow

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup
	$(PY) -m querypose.tools.benchmark --suite

# For a machine with a GPU and no network; docs/gpu.md tells more.
bundle: setup
	$(PY) bundle/build.py --output build/bundle --labels "$(LABELS)" --images "$(IMAGES)" $(OPTIONS)

# Links and anchors that lead nowhere are errors.
docs: setup
	$(PY) -m mkdocs build --quiet --strict
	@echo "build/site/index.html is the first page."

# Needs uv on the PATH.
lock:
	for name in build lock; do uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate requirements/$$name.in \
		--output-file requirements/$$name.txt; done

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
