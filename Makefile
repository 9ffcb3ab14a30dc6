# One word for each errand. Every target sets up its own virtual environment when there is none.
#   make demo    compare policies on the bundled model; ends by naming a picture
#   make test    lint is separate; this runs all tests
#   make test-lowest  the core tests with the oldest versions that pyproject.toml takes
#   make lint    ruff, mypy --strict, import contracts
#   make study   the zoo against everybody's methods: out/study/report.html (QUICK=1 for 15 minutes)
#   make zoo     train the models of the zoo again, from nothing (hours on a CPU; goes on where it was)
#   make bench   what gating costs and saves in single forwards, in pairs
#   make quality what gating costs in pictures: rewrites docs/quality.md (half an hour)
#   make docs    the site, offline, into site/; docs-generate rewrites the tables that are made from
#                the code, docs-check fails where they are behind

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tiny networks run up to 70 times slower on two threads than on one.
export OMP_NUM_THREADS ?= 1
# Tests of one file stay together: they share what took long to build.
WORKERS ?= 2
SPREAD := -n $(WORKERS) --dist loadfile
# Nothing here needs a network at run time.
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-lowest lint bench quality study zoo docs docs-generate docs-check fix clean

$(VENV)/.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	# The constraint keeps a CPU build of torch; without it another package may pull several GB.
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cli,diffusers,kdiffusion,ray,study]' --group test --group lint --group docs
	# --no-deps: these packages pin old companions (docs/k-diffusion.md), or pull in torchvision.
	$(BIN)/pip install --quiet --no-deps k-diffusion==0.1.1.post1 DeepCache==0.1.1 tgate==1.0.0 \
		tomesd==0.1.3 cache-dit==1.5.3
	touch $@

demo: $(VENV)/.stamp
	$(BIN)/tgate-sampling compare --model emoji-sd --out out/demo

test: $(VENV)/.stamp
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

# A room of its own, since the oldest versions and the newest cannot share one.
LOWEST := .venv-lowest
LOWEST_TESTS = tests/test_lowest.py tests/core tests/adapters tests/cli tests/plugins/test_tgate*.py \
	tests/plugins/test_policies.py tests/plugins/test_k_diffusion_denoiser.py \
	tests/study/test_spec.py tests/study/test_execute.py tests/study/test_engines.py \
	tests/study/metrics/test_paired.py tests/study/report/test_charts.py \
	tests/study/report/test_page.py tests/study/report/test_table.py tests/zoo/test_loader.py \
	tgate_sampling

$(LOWEST)/.stamp: pyproject.toml constraints.txt constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(LOWEST)/bin/pip install --quiet -c constraints.txt torch
	$(LOWEST)/bin/pip install --quiet -c constraints.txt -c constraints-lowest.txt -e '.[cli,diffusers,kdiffusion,ray,study]' --group lowest
	$(LOWEST)/bin/pip install --quiet --no-deps k-diffusion==0.1.1.post1 DeepCache==0.1.1 tgate==1.0.0
	touch $@

test-lowest: $(LOWEST)/.stamp
	$(LOWEST)/bin/python -m pytest -p no:cacheprovider $(LOWEST_TESTS) $(ARGS)

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every page may hold generated tables; one without any passes through as it is.
COG := $(BIN)/cog -I docs --verbosity=1
PAGES = $(wildcard docs/*.md docs/*/*.md)

# Not --quiet: it drops the warnings that --strict counts.
docs: $(VENV)/.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

docs-generate: $(VENV)/.stamp
	$(COG) -r $(PAGES)

docs-check: $(VENV)/.stamp
	@$(COG) --check --diff $(PAGES) || { echo "behind the code: make docs-generate"; exit 1; }

quality: $(VENV)/.stamp
	$(BIN)/python tests/bench/quality.py $(ARGS)

study: $(VENV)/.stamp
	$(BIN)/tgate-sampling study --suite zoo $(if $(QUICK),--quick) --workers $(WORKERS) --out out/study $(ARGS)

zoo: $(VENV)/.stamp
	$(BIN)/python -m tgate_zoo train all --out out/zoo $(ARGS)

bench: $(VENV)/.stamp
	$(BIN)/python tests/bench/forward.py $(ARGS)

fix: $(VENV)/.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out site .mypy_cache .ruff_cache .pytest_cache
