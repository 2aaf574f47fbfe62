# Every target works on a fresh clone, with Python >= 3.11 and make: what it needs goes into .venv, from the locks.
# Another Python: make install PYTHON=python3.12. pip's own settings (index, cache, certificates) are respected.

PYTHON ?= python3
WORKERS ?= 2
WITHIN ?= 110
SIZE ?= middle
MUTANTS ?= 10
SEED ?= 0
CARD = reports/gpu-$(shell date -u +%Y-%m-%d).json
CARD_WITHIN ?= 480
PIP := .venv/bin/python -m pip --disable-pip-version-check
SAID := .venv/bin/python -V 2>&1

.PHONY: help install demo test docs test-docs bench test-browser test-load test-sagemaker test-cluster test-gpu-compile \
  bench-gpu proof coverage mutants audit \
  pictures lint lock clean python
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

install: .venv/.runtime ## .venv with fmtune and what it needs to run; a second call does nothing

demo: .venv/.runtime ## tune studies/digits.yaml and write its report
	.venv/bin/fmtune run studies/digits.yaml

test: lint ## lint, then all tests with coverage; skipped tests are listed with their reason
	.venv/bin/python -m pytest -n $(WORKERS) --cov --cov-report=term:skip-covered

bench: .venv/.runtime ## this version against the last accepted one, in turns; fails when it is surely slower or worse
	.venv/bin/fmtune bench --ci --within $(WITHIN)

lint: .venv/.dev ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/mypy

docs: build/docs/.tools ## the site of docs/ in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --strict

# The site's reference is made from fmtune's own tables, so its lock holds what fmtune needs to run too.
build/docs/.tools: requirements-docs.lock pyproject.toml | python
	$(PYTHON) -m venv --clear build/docs
	build/docs/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r requirements-docs.lock
	build/docs/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e .
	@touch $@

test-docs: .venv/.dev ## run every block of code in the docs and the README: some minutes
	FMTUNE_TEST_DOCS=1 .venv/bin/python -m pytest tests/test_docs.py

test-browser: .venv/.dev ## reports in a real browser: needs node 20, npm and Chromium
	@command -v npm >/dev/null || { echo "error: npm is missing: apt-get install nodejs npm chromium" >&2; exit 1; }
	cd tests/browser && npm ci --no-audit --no-fund --ignore-scripts
	.venv/bin/python tests/browser/pages.py test-output/browser
	PAGES=test-output/browser node --test tests/browser/report.test.mjs

test-load: .venv/.dev ## load test of the server beside FastAPI, or alone for MINUTES: needs wrk and two cores
	.venv/bin/python tests/load/load.py $(MINUTES:%=--minutes %)

test-sagemaker: .venv/.dev build/mxnet/.tools build/sagemaker/.tools ## artifacts in MXNet itself, the server by boto3 and the SDK
	FMTUNE_MXNET_PYTHON=build/mxnet/bin/python FMTUNE_SDK_PYTHON=build/sagemaker/bin/python \
	  .venv/bin/python -m pytest -v tests/test_sagemaker_outside.py

# Both need older packages than fmtune's, so each has an environment of its own; nothing of them is fmtune's.
build/mxnet/.tools: TOOLS = mxnet==1.9.1 numpy==1.23.5
build/sagemaker/.tools: TOOLS = 'sagemaker<3' boto3 scipy
build/mxnet/.tools build/sagemaker/.tools: | python
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install -q $(TOOLS)
	@touch $@

proof: .venv/.dev ## try the promises of docs/trust.md; SIZE=release takes hours; needs strace
	@command -v strace >/dev/null || { echo "error: strace is missing: apt-get install strace" >&2; exit 1; }
	.venv/bin/python -m tests.proof --size $(SIZE) --write docs/trust.md

coverage: .venv/.dev ## every branch of parsers, storage and atomic writes is taken by a test: some minutes
	.venv/bin/python -m tests.proof.coverage

mutants: .venv/.dev ## changes of those modules that no test sees; MUTANTS of each, SEED draws them
	.venv/bin/python -m tests.proof.mutants --count $(MUTANTS) --seed $(SEED)

audit: python ## known faults of the locked packages, from the advisories' database
	$(PYTHON) -m venv --clear build/audit
	build/audit/bin/python -m pip --disable-pip-version-check install -q pip-audit
	build/audit/bin/pip-audit --disable-pip --require-hashes -r requirements.lock

bench-gpu: .venv/.gpu ## the suite of a CUDA card, into reports/, within CARD_WITHIN seconds; says so where there is none
	@mkdir -p reports
	.venv/bin/python -m fmtune bench --suite gpu --within $(CARD_WITHIN) --out $(CARD); found=$$?; \
	  .venv/bin/python -m fmtune report $(CARD) && exit $$found

# The extra gpu, where a card's driver is: half a gigabyte and more.
.venv/.gpu: .venv/.runtime
	@if command -v nvidia-smi >/dev/null; then \
	  echo "installing the extra gpu into .venv: 0.8 GB" && $(PIP) install -q -e '.[gpu]' --no-build-isolation; fi
	@touch $@

test-gpu-compile: build/gpu-compile/.tools ## every CUDA kernel compiled for sm_80 and sm_90a, with no card: downloads 0.8 GB
	build/gpu-compile/bin/python -W ignore -m tests.gpu.compile

build/gpu-compile/.tools: | python
	$(PYTHON) -m venv --clear build/gpu-compile
	build/gpu-compile/bin/python -m pip --disable-pip-version-check install -q $(CUDA_TOOLS)
	@touch $@

# The compiler alone, without a driver: what the extra gpu brings on a machine with a card.
CUDA_TOOLS = "numba-cuda[cu13]>=0.30.4,<0.31" "numpy<2.5" nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm

test-cluster: .venv/.dev build/ray/.tools ## real PostgreSQL and Ray: needs Debian's postgresql; iproute2 and root for a part
	@mkdir -p build
	.venv/bin/python -m pytest tests/cluster/on_postgres.py tests/cluster/on_hosts.py -v -s --basetemp=build/test-cluster \
	  -o faulthandler_timeout=1800
	build/ray/bin/python -m pytest tests/cluster/on_ray.py -v -s --basetemp=build/test-ray -o faulthandler_timeout=1800

build/ray/.tools: requirements-cluster.lock pyproject.toml | python
	@echo "installing Ray and the tests' tools into build/ray: about two minutes"
	$(PYTHON) -m venv --clear build/ray
	build/ray/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r requirements-cluster.lock
	build/ray/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e .
	@touch $@

pictures: .venv/.dev ## the README's pictures, from a real run: needs Chromium
	.venv/bin/python -m tests.pictures

lock: python ## write the locks anew from pyproject.toml; UPGRADE=1 also takes newer versions
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip --disable-pip-version-check install -q uv
	$(COMPILE) --group build -o requirements.lock
	$(COMPILE) --group build --extra serve -c requirements.lock -o requirements-image.lock
	$(COMPILE) --group dev $(EXTRAS:%=--extra %) -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --group docs -c requirements.lock -o requirements-docs.lock
	$(COMPILE) --group dev $(EXTRAS:%=--extra %) --extra cluster -c requirements-dev.lock -o requirements-cluster.lock

# What the tests need of the extras; Ray has a lock of its own, and a GPU none.
EXTRAS = parquet sklearn onnx mlflow postgres dashboard serve

# With extras in it: pip 23, as Python 3.11 brings it, takes coverage[toml] for another package than coverage, looks for
# its newest version, and refuses that for want of a hash.
COMPILE = build/lock/bin/uv pip compile pyproject.toml -q --python build/lock/bin/python --universal \
  --python-version 3.11 --generate-hashes --no-strip-extras --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

clean: ## remove .venv, builds and caches; studies in runs/ and pages in reports/ stay
	rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find fmtune tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps lie inside .venv and go with it. A venv whose making was interrupted has no pip: it is made again.
.venv/.runtime: requirements.lock pyproject.toml | python
	@echo "installing the locked requirements into .venv: about a minute"
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PIP) install -q --require-hashes -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "installing the tools for tests into .venv: about half a minute"
	$(PIP) install -q --require-hashes -r requirements-dev.lock
	@touch $@

python:
ifneq ($(origin PYTHON),file)
	@test ! -e .venv/.runtime || test "$$($(SAID))" = "$$($(PYTHON) -V 2>&1)" || { \
	  echo "error: .venv was made with $$($(SAID)), not with $(PYTHON); 'make clean' first" >&2; exit 1; }
endif
	@test -e .venv/.runtime || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
