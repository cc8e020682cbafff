# make demo   train, evaluate and predict on the generated street scenes
# make test   the linter and every test, against the real PyTorch references
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/run.stamp
	$(BIN)/python -m fastfcn_jax.demo --output runs/demo

test: .venv/test.stamp lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/run.stamp: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/test.stamp: .venv/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[test]"
	$(BIN)/python -m pip uninstall --quiet --yes fastfcn-jax
	touch $@

clean:
	rm -rf .venv runs build *.egg-info
