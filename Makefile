# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

# Needs only python3 (3.11 or later), pip and make. Everything is installed and cached inside this folder.

PYTHON ?= python3
WORKERS ?= 2

PYVERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
SUPPORTED := $(shell $(PYTHON) -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)
CONSTRAINTS := constraints/py$(if $(filter 3.11,$(PYVERSION)),311,312).txt
VENV := .venv-$(PYVERSION)
READY := $(VENV)/.ready
READY_SITE := $(VENV)/.ready-site

# ArviZ and Matplotlib write to the home folder unless told otherwise; pip keeps its own cache.
RUN := XDG_CACHE_HOME="$(CURDIR)/.cache" $(VENV)/bin/python
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint bench bench-inverse bench-exact bench-families bench-microcanonical docs gallery site site-check mutants clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "PYTHON=... picks the interpreter (default python3), WORKERS=... the test processes (default 2)."

setup: $(READY) ## make the virtual environment with the pinned packages

# Debian's python3 has no ensurepip of its own; there the pip beside it fills the environment.
$(READY): pyproject.toml $(CONSTRAINTS)
ifneq ($(SUPPORTED),True)
	@echo "numpyro-scores needs Python 3.11 or later, but '$(PYTHON)' is" \
		"$(if $(PYVERSION),Python $(PYVERSION),not an interpreter that runs)." \
		"Pick another one: make PYTHON=python3.11 ..." >&2
	@exit 1
endif
	$(PYTHON) -m venv --clear $(VENV) >/dev/null || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(CONSTRAINTS) -e '.[test,examples,lint]'
	@touch $@

# What the site needs besides, which the tests do not.
$(READY_SITE): $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(CONSTRAINTS) -e '.[docs]'
	@touch $@

demo: $(READY) ## train a prior on digits, deblur one, write demo/
	$(RUN) examples/digits_deblurring.py --output demo

test: $(READY) ## the quick tests
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: $(READY_SITE) ## the slow tests, that of the site among them
	$(RUN) -m pytest -n $(WORKERS) -m slow

lint: $(READY) ## ruff (rules and format) and ty (types)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m ty check --python $(VENV)

bench: $(READY) ## overhead, efficiency, discrete models, objectives, training, digits, a Stein test, log densities
	$(RUN) -m benchmarks.overhead
	$(RUN) -m benchmarks.efficiency
	$(RUN) -m benchmarks.discrete
	$(RUN) -m benchmarks.objectives
	$(RUN) -m benchmarks.training
	$(RUN) -m benchmarks.digits
	$(RUN) -m benchmarks.diagnostics
	$(RUN) -m benchmarks.likelihood

bench-families: $(READY) ## every family of models on two moons and digits, from which the page on families is made
	$(RUN) -m benchmarks.families --output demo/families --data moons & \
		$(RUN) -m benchmarks.families --output demo/families --data digits; wait
	$(RUN) -m benchmarks.families.table demo/families

bench-inverse: $(READY) ## posterior samplers on solved inverse problems, coverage with a learned prior
	$(RUN) -m benchmarks.inverse
	$(RUN) -m benchmarks.inverse_quality
	$(RUN) -m benchmarks.deconvolution
	$(RUN) -m benchmarks.coverage --settled 400

bench-exact: $(READY) ## every sampler on published problems whose posterior is known; FULL=1 for the papers' sizes
	$(RUN) -m benchmarks.exact --fresh $(if $(FULL),--full)

bench-microcanonical: $(READY) ## MAMS and MCLMC on the ten targets of their paper, in 100,000 dimensions, their speed
	$(RUN) -m benchmarks.microcanonical
	$(RUN) -m benchmarks.microcanonical.large
	$(RUN) -m benchmarks.microcanonical.modes
	$(RUN) -m benchmarks.microcanonical.speed
	$(RUN) -m benchmarks.metrics

docs: $(READY) ## links between pages, and every public name in a table
	$(RUN) docs/check.py

gallery: $(READY) ## execute the examples that changed, for their pictures (up to 35 minutes)
	$(RUN) docs/gallery.py

site: $(READY_SITE) ## the pages as HTML, in site/: open site/index.html
	rm -rf site
	$(RUN) -m sphinx -W --keep-going -q -b html -d .cache/doctrees docs site

site-check: site ## every page in headless Chromium: links, pictures, formulas, widths, search
	$(RUN) docs/check_site.py

mutants: $(READY) ## planted faults that the tests must notice
	$(RUN) tests/mutants.py --jobs $(WORKERS)

clean: ## remove the environments, the caches and the demo's output
	rm -rf .venv-* .cache demo dist site docs/api/names
	find . -name __pycache__ -prune -exec rm -rf {} +
