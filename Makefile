# make demo   train, evaluate and predict on generated street scenes (no data set needed)
# make test   the linter and every test, against the real PyTorch references
PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet
DEMO := runs/demo

.PHONY: demo test lint clean

demo: .venv/run.stamp
	.venv/bin/python train.py --config configs/demo.py --workdir $(DEMO)
	.venv/bin/python eval.py --checkpoint $(DEMO) --output $(DEMO)/evaluation
	.venv/bin/python -m fastfcn_jax.data.photos --output $(DEMO)/photos --count 6
	.venv/bin/python -m fastfcn_jax.predict --checkpoint $(DEMO) --input $(DEMO)/photos --output $(DEMO)/predictions
	@echo "checkpoint   $(DEMO)/checkpoints"
	@echo "scores       $(DEMO)/evaluation/metrics.json, report.html"
	@echo "predictions  $(DEMO)/predictions"

test: lint
	.venv/bin/python -m pytest -n 2 --dist loadgroup tests

lint: .venv/test.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/run.stamp: requirements.txt
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.txt
	touch $@

# mmcv asks for the desktop build of OpenCV, which needs a display library; the headless build
# goes over it, as both unpack into the same folder.
.venv/test.stamp: .venv/run.stamp pyproject.toml
	$(PIP) --editable ".[test]"
	$(PIP) --force-reinstall --no-deps opencv-python-headless
	touch $@

clean:
	rm -rf .venv runs build *.egg-info
