# Every target first sets up the environment it needs: `demo` the runtime alone, all others the developers' tools.
PYTHON ?= python3
DEV := .venv
RUN := .venv-run
VIEW := .venv-viewer
# Python compiles what it imports, a small part of what is installed.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
OUT ?= out
BUNDLE := lsms_rt/serving/bundle
# Two processes on two cores.  What runs longest starts first (tests/conftest.py), hence no reordering.  A process that a
# test kills ends the run and names the test: pytest-xdist would start another one, and might then wait for ever.
PARALLEL ?= -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --max-worker-restart=0

# Each process of a test would compile all modules anew: pip leaves that to the first import (--no-compile).
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check bench tables aot toolchains prove roofline gpu-check train-demo viewer page wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "%-12s %s\n", $$1, $$2 }'

demo: $(RUN)/.done  ## run the bundled engine on the bundled slices and write pictures to out/demo (no PyTorch)
	$(RUN)/bin/lsms-rt demo -o $(OUT)/demo

test: $(DEV)/.done  ## run all tests that need no GPU
	$(DEV)/bin/python -m pytest $(PARALLEL)

test-fast: $(DEV)/.done  ## run the tests without an export, a build or the network
	$(DEV)/bin/python -m pytest $(PARALLEL) -m "not slow"

check: $(DEV)/.done  ## check style, types and spelling
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy -p lsms_rt
	git ls-files -z | xargs -0 $(DEV)/bin/codespell

bench: $(DEV)/.done  ## measure the bundled engine on this machine: latency, throughput, cold start, memory
	$(DEV)/bin/lsms-rt bench demo

tables: $(DEV)/.done  ## write the generated parts of README.md and docs/: tables of results, API reference, the bundled table of words
	$(DEV)/bin/python -m lsms_rt.bench.report README.md docs/benchmarks.md docs/cpu.md docs/int8.md docs/training.md docs/gpu.md \
	  docs/serving.md docs/triton.md
	$(DEV)/bin/python tests/helpers/api_reference.py
	$(DEV)/bin/python tests/helpers/bundled_table.py

aot: $(DEV)/.done  ## compile all kernels for all architectures (minutes, no GPU) and write the committed report
	$(DEV)/bin/python -m lsms_rt.kernels.aot --dtype fp16 fp32 --report bench/results/aot/kernels.json

toolchains: $(DEV)/.done  ## install an older Triton and a newer ptxas into the user's cache (270 MB), for make prove and its tests
	$(DEV)/bin/python -m lsms_rt.kernels.toolchains

prove: toolchains  ## compile kernels with two Tritons, look for races, prove bounds and assemble (an hour, no GPU)
	for path in "" "$$($(DEV)/bin/python -m lsms_rt.kernels.toolchains --print triton)"; do \
	  PYTHONPATH="$$path" $(DEV)/bin/python -m lsms_rt.kernels.prove --arch sm_80 sm_90 --preset tiny base \
	    --tokens 16 32 64 || exit 4; done

roofline: $(DEV)/.done  ## compute the lower bounds of every stage's time (no GPU): table, JSON, picture
	$(DEV)/bin/python -m lsms_rt.bench.gpu.roofline -o bench/results/roofline.json --picture docs/roofline.png

gpu-check:  ## on a GPU, with that machine's Python and PyTorch: verify and time all that fits into 540 s (GPU_CHECK="--seconds 1800")
	PYTHONPATH=. $(PYTHON) -m lsms_rt.bench.gpu.check $(GPU_CHECK)

train-demo: $(DEV)/.done  ## train the demo weights (hours on two cores, resumes), then measure and bundle them
	$(DEV)/bin/python -m lsms_rt.training.demo --out runs/demo
	$(DEV)/bin/python -m lsms_rt.training.release --run runs/demo

viewer: $(VIEW)/.done  ## check in OHIF (Orthanc, Chromium; Debian) what predict writes, and save pictures to out/viewer
	$(VIEW)/bin/python tests/helpers/viewer/run.py -o $(OUT)/viewer

page:  ## bundle the viewer of the server's page (npm; versions as in package-lock.json); what is installed then holds it
	npm ci --prefix $(BUNDLE) --ignore-scripts --no-audit --no-fund --silent
	npm run --prefix $(BUNDLE) --silent build

wheel: $(DEV)/.done  ## build the wheel into dist/, with the page if `make page` was run
	rm -rf build/lib build/bdist.*  # a removed module must not be shipped again
	$(DEV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# A machine's own index may prefer a CUDA build of PyTorch (several GB); constraints.txt names the version that CI uses.
$(DEV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) -c constraints.txt torch
	$(DEV)/bin/python $(PIP) -c constraints.txt -e '.[dev]'
	$(DEV)/bin/python $(PIP) --no-deps tritonclient==2.73.0 napari-voxtell==0.2.0
	touch $@

$(RUN)/.done: pyproject.toml
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/python $(PIP) -e .
	touch $@

$(VIEW)/.done: pyproject.toml
	$(PYTHON) -m venv $(VIEW)
	$(VIEW)/bin/python $(PIP) -e '.[phantom,seg]' playwright==1.65.2
	touch $@

clean:  ## remove environments, builds and outputs
	rm -rf $(DEV) $(RUN) $(VIEW) build dist $(OUT) *.egg-info
