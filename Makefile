# make demo   sets up, runs the flight-delay pipeline, says where its report is
# make test   sets up, runs every notebook and test
# make lab    JupyterLab on the demo project
# make bench  the benchmarks, peers side by side
# make readme renders README.md from nbs/index.ipynb

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
NEEDS := settings.ini setup.py pyproject.toml constraints.txt

.PHONY: demo test lab bench readme check-python clean

demo: $(VENV)/.demo
	$(BIN)/mlworkbench demo flights

lab: $(VENV)/.demo
	test -d demo/flights || $(BIN)/mlworkbench init demo/flights --template flights
	$(BIN)/mlworkbench lab --project demo/flights

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/nbdev_test --n_workers 2 --skip_folder_re '^pipelines$$'
	$(BIN)/python -m pytest -n 2 --dist loadscope

bench: $(VENV)/.bench
	test -d demo/flights/store || $(BIN)/mlworkbench demo flights
	for bench in tests/benches/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

# the index lies in nbs/, the README beside it: the picture's path differs
readme: $(VENV)/.test
	$(BIN)/jupyter nbconvert --to markdown nbs/index.ipynb --stdout | sed 's#](images/#](nbs/images/#' > README.md

$(VENV)/bin/python: | check-python
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(NEEDS) | $(VENV)/bin/python
	@echo "Installing mlworkbench with its demo (a few minutes the first time)"
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(NEEDS) | $(VENV)/bin/python
	$(INSTALL) --editable '.[demo,sql,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(NEEDS) | $(VENV)/bin/python
	$(INSTALL) --editable '.[demo,sql,dev,bench]'
	@touch $@ $(VENV)/.demo

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "mlworkbench needs Python 3.11 or newer; call make with PYTHON=python3.11"; exit 1; }

clean:
	rm -rf $(VENV) .venv-peers .venv-airflow demo build dist *.egg-info
