# Every target sets up what it needs.  demo uses the runtime's few packages; the rest uses the developers' environment.
PYTHON ?= python3
DEV := .venv
RUN := .venv-run
PIP := -m pip install --quiet --disable-pip-version-check
OUT ?= out

.PHONY: demo test check bench tables aot roofline gpu-check train-demo wheel clean

demo: $(RUN)/.done  ## run the bundled engine on bundled slices, draw the answers into out/demo
	$(RUN)/bin/lsms-rt demo -o $(OUT)/demo

test: $(DEV)/.done  ## all tests that need no GPU
	$(DEV)/bin/python -m pytest

check: $(DEV)/.done  ## ruff and mypy
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy -p lsms_rt

bench: $(DEV)/.done  ## the bundled engine on this machine: latency, throughput, cold start, memory
	$(DEV)/bin/lsms-rt bench demo

tables: $(DEV)/.done  ## the tables of README.md and docs/ from the committed results
	$(DEV)/bin/python -m lsms_rt.bench.report README.md docs/benchmarks.md

aot: $(DEV)/.done  ## compile all kernels for all architectures (no GPU needed; minutes), write the committed report
	$(DEV)/bin/python -m lsms_rt.kernels.aot --dtype fp16 fp32 --report bench/results/aot/kernels.json

roofline: $(DEV)/.done  ## floors of every stage, as a table, JSON and picture (computed, no GPU needed)
	$(DEV)/bin/python -m lsms_rt.bench.gpu.roofline -o bench/results/roofline.json --picture docs/roofline.png

gpu-check:  ## on a GPU, with its own Python and PyTorch: verify all kernels, then time them; GPU_CHECK="--quick" for a look
	PYTHONPATH=. $(PYTHON) -m lsms_rt.bench.gpu.check $(GPU_CHECK)

train-demo: $(DEV)/.done  ## train the demo weights (hours on two cores; resumes), then measure and bundle them
	$(DEV)/bin/python -m lsms_rt.training.train --out runs/demo
	$(DEV)/bin/python -m lsms_rt.training.release --run runs/demo

wheel: $(DEV)/.done
	rm -rf build/lib build/bdist.*  # a module that is gone must not be shipped again
	$(DEV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# A machine's own PyTorch may be a CUDA build of several GB: constraints.txt pins the version that CI has as a CPU build.
$(DEV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) -c constraints.txt torch
	$(DEV)/bin/python $(PIP) -c constraints.txt -e '.[dev]'
	touch $@

$(RUN)/.done: pyproject.toml
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/python $(PIP) -e .
	touch $@

clean:
	rm -rf $(DEV) $(RUN) build dist $(OUT) *.egg-info
