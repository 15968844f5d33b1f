# Two commands to know: `make demo` shows the product, `make test` is what CI runs.

PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ISSUE ?= $(notdir $(lastword $(sort $(wildcard issues/20*))))
NEWSLETTER := $(BIN)/newsletter

.PHONY: help demo test preview lint fmt docs bench prove dist lock clean

help:
	@echo "make demo      build the newest sample issue and send it to a folder, person by person"
	@echo "make test      linters and all tests, six to seven minutes"
	@echo "make preview   the newest issue in the browser, reloaded while you write"
	@echo "make lint fmt  check or mend style, types and imports"
	@echo "make docs      write the generated parts of docs/ anew"
	@echo "make bench     speed beside other tools, as ratios"
	@echo "make prove     the full size of every claim, into docs/proof.md (takes long)"
	@echo "make dist      the wheel, for a machine or a container that has no checkout"
	@echo "make lock      pin the newest versions of what we depend on"
	@echo "make clean     remove what was built, but no subscribers, no keys and no record of what was sent"

# A stamp instead of the folder: an installation that broke off half-way is done again.
$(READY): requirements-dev.txt
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This needs Python 3.11 or newer with venv. On Debian and Ubuntu:"; \
	  echo "    sudo apt-get install python3 python3-venv make"; exit 1; }
	@echo "Making .venv, once: a minute or two …"
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# The demo writes copies into a folder. In a repository that was set up to really send, it must not run.
demo: export DATABASE_URL =
demo: $(READY)
	@grep -q '^transport = "folder"' newsletter.toml || { \
	  echo "newsletter.toml does not send to a folder any more, so the demo would reach people: not run."; exit 1; }
	@$(NEWSLETTER) init --keys
	@$(NEWSLETTER) check $(ISSUE)
	@$(NEWSLETTER) build $(ISSUE) --out build/$(ISSUE)
	@$(NEWSLETTER) subscribers import docs/sample-subscribers.csv --list readers --source demo --apply
	@$(NEWSLETTER) subscribers list
	@$(NEWSLETTER) send $(ISSUE) --confirm 4
	@$(NEWSLETTER) deliveries $(ISSUE)
	@echo
	@echo "Open in a browser:      build/$(ISSUE)/index.html"
	@echo "Open in a mail program: .newsletter/outbox/$(ISSUE)/ (one .eml for each reader)"

# pytest comes last, because its summary is what people and CI read.
test: $(READY)
	@.ci/browser
	@.ci/postgresql
	@.ci/smtp-sink
	@$(MAKE) --no-print-directory lint
	@$(BIN)/pytest -n 2

preview: $(READY)
	@$(NEWSLETTER) preview

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(READY)
	@$(BIN)/python -m tests.make_docs

bench: $(READY)
	@$(BIN)/python -m tests.bench

prove: $(READY)
	@$(BIN)/python -m tests.prove

dist: $(READY)
	@rm -f dist/newsletter_press-*.whl
	@$(BIN)/python -m hatchling build -t wheel -d dist

# With all extras, for every platform, with hashes and without the address they came from: pip's own settings say where to fetch.
COMPILE = $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock" pyproject.toml

lock:
	$(COMPILE) --all-extras --output-file requirements.txt
	$(COMPILE) --group dev --constraint requirements.txt --output-file requirements-dev.txt

clean:
	rm -rf .venv build dist .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find newsletter tests -name __pycache__ -type d -prune -exec rm -rf {} +
