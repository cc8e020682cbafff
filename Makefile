# make demo   train, evaluate and predict on generated street scenes (no data set needed)
# make check  the linter, the types and the tests that take seconds: for every commit
# make test   the linter, the types and every test, against the real PyTorch references
# make docs   the pages of docs/ as a site with a search, in build/site
# make lock   update requirements.lock: the newest versions that pyproject.toml allows
#
# Another Python: make test PYTHON=python3.13 VENV=.venv313
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
DEMO := runs/demo
# A file's tests stay together, for they share what is dear: models, compiled programs, runs.
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests
# The lock is of one Python; on others the tests take the newest versions there are.
LOCK := $(shell $(PYTHON) -c "import sys; sys.version_info[:2] == (3, 11) and print('--constraint requirements.lock')")

# The tests start some hundred processes; where it is set, each would compile our sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo check test lint docs lock clean

demo: $(VENV)/run.stamp
	$(VENV)/bin/fastfcn demo --workdir $(DEMO)

check: lint
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST)

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "open build/site/index.html; its search needs $(VENV)/bin/python -m http.server --bind 127.0.0.1 --directory build/site"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(PIP) -r requirements.txt --editable .
	touch $@

$(VENV)/docs.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".[docs]"
	touch $@

# mmcv asks for the desktop build of OpenCV, which needs a display library; the headless build
# goes over it, as both unpack into the same folder.
$(VENV)/test.stamp: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) $(LOCK) --editable ".[test]"
	$(PIP) $(LOCK) --force-reinstall --no-deps opencv-python-headless
	touch $@

lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet ".[test]"
	echo "# Every package of \`make test\` on Python 3.11, as \`make lock\` found the newest that pyproject.toml allows." > requirements.lock
	.venv-lock/bin/python -m pip freeze --exclude fastfcn-jax | sed 's/+cpu//' >> requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv runs build *.egg-info
