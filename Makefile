# Everything runs in .venv, which is made on first use and installed again when setup.cfg
# changes. All paths are relative and tools are started as `python -m`, so that the
# checkout may lie under a path with spaces.

VENV_PYTHON := .venv/bin/python
INTERPRETER := .venv/interpreter
INSTALLED := .venv/installed
INSTALLED_TEST := .venv/installed-test

# The range of python_requires in setup.cfg.
SUPPORTED := 3.13, 3.12 or 3.11
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python)
SUITABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

# The clone has the name of the package: found through an import hook, as pip does it by
# default, a script beside the clone would import the clone's directory instead.
EDITABLE := --config-settings editable_mode=compat --editable

.DELETE_ON_ERROR:
.PHONY: help quickstart demo-workers test test-slow clean FORCE

help:
	@echo 'make quickstart   train on generated images, evaluate, predict, export (a few minutes)'
	@echo 'make demo-workers two processes train one network; one is killed, and both go on'
	@echo 'make test         style checks and every test but the slow ones'
	@echo 'make test-slow    the slow tests'
	@echo 'make clean        remove .venv, build products and caches; runs/ stays'
	@echo 'PYTHON=...        the interpreter: $(SUPPORTED) (default: the first found)'

quickstart: $(INSTALLED)
	$(VENV_PYTHON) -m rs_keras.train --flagfile=configs/quickstart.cfg --workdir=runs/quickstart
	$(VENV_PYTHON) -m rs_keras.evaluate --workdir=runs/quickstart
	$(VENV_PYTHON) examples/switch_resolution.py --model=runs/quickstart/model.keras
	$(VENV_PYTHON) -m tools.export_tflite --workdir=runs/quickstart --output=runs/quickstart/model.tflite --overwrite

demo-workers: $(INSTALLED)
	$(VENV_PYTHON) examples/demo_workers.py --workdir=runs/demo_workers

test: $(INSTALLED_TEST)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m pytest -m 'not slow'

test-slow: $(INSTALLED_TEST)
	$(VENV_PYTHON) -m pytest -m slow

clean:
	rm -rf .venv build dist rs_keras.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each candidate is executed, because a launcher of that name may stand on PATH without
# the version behind it.
$(INTERPRETER):
	@for python in $(CANDIDATES); do \
	  if "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then \
	    echo "Making .venv with $$("$$python" --version) ($$python)"; \
	    "$$python" -m venv --clear .venv && echo "$$python" >$@; \
	    exit; \
	  fi; \
	done; \
	echo 'rs_keras needs Python $(SUPPORTED) with its venv module: name one with' \
	  '`make PYTHON=/path/to/python3.12 ...`. Received: PYTHON=$(PYTHON)' >&2; \
	exit 2

# Another PYTHON= than the one that made .venv makes it anew.
ifneq ($(PYTHON),)
ifneq ($(PYTHON),$(shell cat $(INTERPRETER) 2>/dev/null))
$(INTERPRETER): FORCE
endif
endif

$(INSTALLED): $(INTERPRETER) setup.cfg pyproject.toml
	@echo 'Installing rs_keras and what it needs into .venv (a few minutes on first use)'
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check $(EDITABLE) .
	@touch $@

$(INSTALLED_TEST): $(INTERPRETER) setup.cfg pyproject.toml
	@echo 'Installing rs_keras and its test tools into .venv (a few minutes on first use)'
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check $(EDITABLE) '.[test]'
	@touch $@ $(INSTALLED)
