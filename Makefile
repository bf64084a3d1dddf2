# Every target sets up what it needs in .venv. Pass options of the command on with ARGS, e.g. make demo ARGS="--port 9000".
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
comma := ,
# Where it is set, each of the hundreds of Pythons that the tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

# Installs $(1) into .venv, with one line that shows which package pip is at. pip's errors are shown as they are.
define install
	@{ $(BIN)/python -u -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt \
		--editable '$(1)' || echo failed; } | while read -r does what rest; do case "$$does $$what" in \
			Collecting\ *|Processing\ *) test ! -t 1 || printf '\r  fetching %-50.50s' "$$what" ;; \
			Installing\ collected) test ! -t 1 || printf '\r  %-60s\n' "unpacking all of them" ;; \
			failed\ ) exit 1 ;; \
		esac; done
endef

.PHONY: demo serve test test-system test-clients test-browser test-cluster test-vulkan test-wheel test-packages release \
	gpu-rehearsal lint docs screenshots format bench clean
.DEFAULT_GOAL := demo

demo: .venv/installed
	@exec $(BIN)/trillama serve --demo $(ARGS)

serve: .venv/installed
	@exec $(BIN)/trillama serve $(ARGS)

PYTEST := $(BIN)/pytest -n 3 --dist loadgroup

test: .venv/installed-dev # the proxy, the launcher's parts, the engine
	$(PYTEST) $(addprefix --ignore tests/,browser clients cluster packages system) $(ARGS)

test-system: .venv/installed-dev # the whole product as processes: starts, faults, reloads, an init system
	$(PYTEST) tests/system $(ARGS)

test-clients: .venv/installed-dev # real clients, in environments of their own: 1.5 GB, some minutes the first time
	$(PYTEST) tests/clients $(ARGS)

test-browser: .venv/installed-browser # the console in a real Chromium, which it needs: apt-get install chromium
	$(BIN)/pytest tests/browser $(ARGS)

test-cluster: .venv-cluster/installed # two hosts on this machine under kills: Ray is 750 MB the first time
	.venv-cluster/bin/pytest --timeout 300 tests/cluster $(ARGS)

screenshots: .venv/installed-browser # the pictures in the docs, by a real Chromium
	$(BIN)/python -m tests.browser.screenshots

test-vulkan: .venv/installed-dev # a real GPU backend on Mesa's software device (docs/engine.md): a quarter of an hour the first time
	GGML_VK_VISIBLE_DEVICES=0 $(BIN)/trillama engine build --vulkan --if-needed --out .venv/vulkan-engine
	TRILLAMA_VULKAN_ENGINE=.venv/vulkan-engine/llama-server $(BIN)/pytest tests/system/test_vulkan.py $(ARGS)

test-wheel: .venv/installed-dev .venv-release/installed # the wheel in a bare environment: about a minute
	$(BIN)/pytest tests/packages/test_wheel.py $(ARGS)

test-packages: .venv/installed-dev release # as root: the .deb in booted Debians, the containers' steps; pipx and uv
	$(BIN)/pytest tests/packages $(ARGS)

release: .venv-release/installed # into dist/; the .deb needs root and debootstrap
	sh packaging/release.sh

gpu-rehearsal: .venv/installed-dev .venv-torch/installed # the GPU bench on the CPU; PyTorch is 5 GB the first time
	TRILLAMA_TORCH_PYTHON=$(CURDIR)/.venv-torch/bin/python $(BIN)/pytest -s tests/bench/test_gpu_rehearsal.py $(ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: .venv/installed
	$(BIN)/python docs/generate.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/installed-bench
	$(BIN)/python -m bench $(ARGS)
	$(BIN)/python -m bench.report

clean:
	rm -rf .venv .venv-cluster .venv-torch .venv-release dist
	test ! -d .roots || rm -rf --one-file-system .roots # a build that was killed leaves /proc mounted in there

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing trillama and what it needs into .venv (about a minute, once)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv # its making was killed half-way
	$(call install,.)
	@touch $@

.venv/installed-dev: .venv/installed
	$(call install,.[dev])
	@touch $@

.venv/installed-browser: .venv/installed-dev
	$(call install,.[dev$(comma)browser])
	@touch $@

.venv/installed-bench: .venv/installed-dev
	$(call install,.[dev$(comma)bench])
	@touch $@

.venv-release/installed: constraints.txt
	$(PYTHON) -m venv --clear .venv-release
	.venv-release/bin/python -m pip install --quiet --constraint constraints.txt build twine pipx uv
	@touch $@

.venv-torch/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-torch
	.venv-torch/bin/python -m pip install --quiet --constraint constraints.txt --editable . torch==2.13.0
	@touch $@

.venv-cluster/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-cluster
	.venv-cluster/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,cluster]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "trillama needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "Python cannot make a virtual environment here. On Debian: apt-get install python3-venv" >&2; exit 1; }
