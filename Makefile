# Set-up, demo and checks. Every target makes what it needs.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
OLDEST_GYMNASIUM := 1.1.1
STAMP := $(VENV)/.installed

.PHONY: install demo test check lint types old-gymnasium

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt torch
	$(RUN) -m pip install --quiet -c constraints.txt -e ".[all,dev]"
	touch $@

demo: install
	$(VENV)/bin/crystalgen demo

test: install
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(MAKE) old-gymnasium

# the environment's tests again, on the oldest supported Gymnasium
old-gymnasium: install
	test -d $(VENV)/gymnasium-$(OLDEST_GYMNASIUM) || \
	    $(RUN) -m pip install --quiet --no-deps --target $(VENV)/gymnasium-$(OLDEST_GYMNASIUM) gymnasium==$(OLDEST_GYMNASIUM)
	PYTHONPATH=$(VENV)/gymnasium-$(OLDEST_GYMNASIUM) $(RUN) -m pytest tests/crystal_env/test_env.py tests/crystal_env/test_vector_env.py tests/crystal_env/test_wrappers.py tests/rewards/test_wrappers.py

lint: install
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: install
	$(VENV)/bin/mypy

check: lint types test
