# `make run` is the whole job on the phantom, `make run DATA=/path/to/rsna-bone-age` on real radiographs.
# `make test` proves the code. `make help` lists the rest.

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
DATA   ?=
OUT    ?= $(if $(DATA),outputs/local,outputs/phantom)

.PHONY: help run test test-backends test-dicom test-web screenshots bench fuzz notebooks report clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Boneage needs Python 3.11 or newer; say which with make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

run: $(VENV)/installed   ## set up and run the main job (DATA=... for real radiographs, OUT=... for where to)
	$(PY) -m boneage campaign $(if $(DATA),real --data "$(DATA)",phantom) --outputs "$(OUT)"

test: $(VENV)/installed-dev   ## tests, lint, floors and the notebooks on a tiny phantom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(PY) -m boneage report --check
	$(PY) -m pytest

test-backends: $(VENV)/installed-dev   ## the same code on JAX and PyTorch
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-backends.txt
	KERAS_BACKEND=jax $(PY) -m pytest -m "not slow" $(BACKEND_TESTS)
	KERAS_BACKEND=torch $(PY) -m pytest -m "not slow" $(BACKEND_TESTS)

BACKEND_TESTS = $(foreach t,build weights compiled training training_kill evaluate explain explain_methods,tests/test_$(t).py)

test-dicom: $(VENV)/installed-dev   ## the DICOM node among dcmtk, Orthanc and dciodvfy
	@for program in dcmrecv Orthanc dciodvfy; do command -v $$program > /dev/null || \
	  { echo "first: apt-get install --no-install-recommends dcmtk orthanc dicom3tools"; exit 2; }; done
	$(PY) -m pytest tests/dicom_peers.py

test-web: $(VENV)/installed-dev   ## the web page in a real Chromium: behaviour, accessibility, print
	$(PY) -m pytest tests/web_browser.py

screenshots: $(VENV)/installed-dev   ## the pictures of the web page in images/
	$(PY) tests/web_screenshots.py

bench: $(VENV)/installed-dev   ## speed and memory, into benchmarks/results.json and its README
	$(PY) -m benchmarks

fuzz: $(VENV)/installed-dev   ## 10,000 spoilt files for decoders and HTTP API (DATA=... of radiographs), into benchmarks/fuzz.json
	$(PY) tests/fuzz.py $(if $(DATA),--data "$(DATA)")

notebooks: $(VENV)/installed-dev   ## execute the notebooks in place (DATA=... for real radiographs)
	$(PY) notebooks/execute.py $(if $(DATA),--data "$(DATA)")

report: $(VENV)/installed   ## render README's tables, figures and the HTML report from outputs/
	$(PY) -m boneage report $(if $(DATA),--data "$(DATA)")

clean:           ## remove caches and phantom runs; shipped outputs stay
	rm -rf cache build outputs/phantom .pytest_cache .ruff_cache
