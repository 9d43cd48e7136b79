# Every verb sets up what it needs in .venv with plain pip; a second call starts at once, and a
# changed pyproject.toml or constraints.txt installs again. `make PYTHON=... VERB` names another
# Python, `make test ARGS="-k name"` passes arguments to pytest or to the demo.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

# The first of these that runs, is new enough and can make environments.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$candidate -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	>/dev/null 2>&1 && echo $$candidate && break; done)

# Several workers with several threads each only get in each other's way.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Without bytecode files, every process of a test compiles the sources again.
unexport PYTHONDONTWRITEBYTECODE
# Tiny models allocate and free many small blocks. With these settings, glibc keeps freed memory and
# uses large pages, instead of returning it and getting it back page by page: where that is slow, as
# in some virtual machines, tests take half as long.
TEST_TARGETS := test test-slow test-parity test-quantization test-deepspeed test-compat check docs
$(TEST_TARGETS): export PYTHONMALLOC := malloc
$(TEST_TARGETS): export GLIBC_TUNABLES := glibc.malloc.hugetlb=1:glibc.malloc.top_pad=16000000:$\
glibc.malloc.trim_threshold=4000000000:glibc.malloc.mmap_threshold=1000000000
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test faults test-slow test-parity test-toolkits test-quantization test-deepspeed test-serving test-browser test-compat bench check docs format clean

help: ## show the verbs
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

demo: export OMP_NUM_THREADS := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
demo: $(READY) ## tune a small vision-language model on this computer, with figures before and after
	$(BIN)/unidpo-mm demo $(ARGS)

test: $(READY) ## the fast tests, offline
	$(PYTEST) $(ARGS)

test-slow: $(READY) ## the slow tests, offline
	$(PYTEST) -m "slow and not gpu and not network" $(ARGS)

test-parity: $(VENV)/parity/.ready ## the comparison with TRL, step by step
	PYTHONPATH=$(CURDIR)/$(VENV)/parity $(BIN)/python -m pytest -m parity $(ARGS)

test-toolkits: $(VENV)/toolkits/.ready ## compare scores with the functions of VLMEvalKit and lmms-eval
	PYTHONPATH=$(CURDIR)/$(VENV)/toolkits $(BIN)/python -m pytest -m toolkits $(ARGS)

test-quantization: $(VENV)/quantization/.ready ## train LoRA adapters on quantized weights
	PYTHONPATH=$(CURDIR)/$(VENV)/quantization $(BIN)/python -m pytest -m quantization $(ARGS)

test-deepspeed: $(VENV)/deepspeed/.ready ## train with DeepSpeed ZeRO-2 and ZeRO-3 in two processes on the CPU
	PYTHONPATH=$(CURDIR)/$(VENV)/deepspeed DS_ACCELERATOR=cpu $(BIN)/python -m pytest -m deepspeed $(ARGS)

test-serving: $(VENV)/serving/.ready ## serve exported models with vLLM and transformers on the CPU
	UNIDPO_MM_SERVING=$(CURDIR)/$(VENV)/serving PYTHONPATH=$(CURDIR)/$(VENV)/transformers-serve \
		$(BIN)/python -m pytest -m serving $(ARGS)

faults: $(READY) ## kills, damage, full disks, signals, NaN, workers, bad recipes, as a table
	HF_HUB_OFFLINE=1 $(BIN)/python tests/faults $(ARGS)

test-browser: $(READY) ## the comparison page in headless Chromium, which has to be installed
	$(BIN)/python -m pytest -m browser $(ARGS)

test-compat: $(VENV)/lowest/.ready $(VENV)/newest/.ready ## the fast tests with the lowest and the newest libraries
	PYTHONPATH=$(CURDIR)/$(VENV)/lowest $(PYTEST) $(ARGS)
	PYTHONPATH=$(CURDIR)/$(VENV)/newest $(PYTEST) $(ARGS)

bench: $(VENV)/parity/.ready ## time and memory of a step beside TRL's
	PYTHONPATH=$(CURDIR)/$(VENV)/parity HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/preference_step.py $(ARGS)

# Laid over the environment without their dependencies, so that they cannot change it.
$(VENV)/%/.ready: tests/versions/%.txt $(READY)
	rm -rf $(VENV)/$*
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/$* -r tests/versions/$*.txt
	@touch $@

# DeepSpeed compiles its kernels when they are first used; none of them is needed on a CPU.
$(VENV)/deepspeed/.ready: export DS_BUILD_OPS := 0

# vLLM has an environment of its own, since it needs another torch. What `transformers serve` needs
# is laid over this one, with its dependencies.
$(VENV)/serving/.ready: tests/versions/serving.txt tests/versions/transformers-serve.txt $(READY)
	rm -rf $(VENV)/serving $(VENV)/transformers-serve
	$(BIN)/python -m pip install --quiet -c constraints.txt --target $(VENV)/transformers-serve \
		-r tests/versions/transformers-serve.txt
	$(BIN)/python -m venv $(VENV)/serving
	$(VENV)/serving/bin/python -m pip install --quiet $$(grep '^torch==' tests/versions/serving.txt)
	$(VENV)/serving/bin/python -m pip install --quiet --no-deps -r tests/versions/serving.txt
	$(VENV)/serving/bin/python tests/serving/requirements.py > $(VENV)/serving/requirements.txt
	$(VENV)/serving/bin/python -m pip install --quiet -r $(VENV)/serving/requirements.txt
	@touch $@

check: $(READY) ## lint, format, types, spelling, language and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/support/language.py

docs: $(READY) ## build the documentation site into site/; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

format: $(READY) ## format the code and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove runs and caches; the environment stays (rm -r .venv)
	rm -rf runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# torch goes first: it is by far the largest download, and fails early and alone where it must.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.14 with venv found; name one: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,test,dev,docs]'
	@touch $@
