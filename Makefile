# One word for each errand. Every target sets up its own virtual environment when there is none.
#   make demo    compare policies on the bundled model; ends by naming a picture
#   make test    lint is separate; this runs all tests
#   make lint    ruff, mypy --strict, import contracts
#   make bench   what gating costs and saves in single forwards, in pairs
#   make quality what gating costs in pictures: rewrites docs/quality.md (half an hour)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tiny networks run up to 70 times slower on two threads than on one.
export OMP_NUM_THREADS ?= 1
# Nothing here needs a network at run time.
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lint bench quality fix clean

$(VENV)/.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	# The constraint keeps a CPU build of torch; without it another package may pull several GB.
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cli,diffusers,kdiffusion]' --group test --group lint
	# --no-deps: both packages pin old companions (docs/k-diffusion.md).
	$(BIN)/pip install --quiet --no-deps k-diffusion==0.1.1.post1 DeepCache==0.1.1
	touch $@

demo: $(VENV)/.stamp
	$(BIN)/tgate-sampling compare --model emoji-sd --out out/demo

test: $(VENV)/.stamp
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

quality: $(VENV)/.stamp
	$(BIN)/python tests/bench/quality.py $(ARGS)

bench: $(VENV)/.stamp
	$(BIN)/python tests/bench/forward.py $(ARGS)

fix: $(VENV)/.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache
