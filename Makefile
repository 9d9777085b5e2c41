# What a person does with Runahead. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help deps build test demo serve bench fuzz package format lint clean

PRESET ?= release
JOBS ?= $(shell nproc)
# What is built goes into this folder, or below the user's cache folder where this one cannot be written.
BUILD := $(shell at=build; [ -e build ] || at=.; \
  if [ -w $$at ]; then echo build; else echo "$${XDG_CACHE_HOME:-$$HOME/.cache}/runahead/build$(CURDIR)"; fi)
OUT = "$(BUILD)/$(PRESET)"

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps:  ## Install the Debian or Ubuntu packages that are missing (needs root or sudo)
	@tools/install_deps.sh

build: deps  ## Build everything; the program is build/release/bin/runahead
	@[ $(PRESET) != cuda ] || tools/install_cuda_deps.sh
	@[ "$(BUILD)" = build ] || echo "This folder cannot be written: building in $(BUILD)"
	@log=$$(cmake --preset $(PRESET) -B $(OUT) 2>&1) || { echo "$$log"; exit 1; }
	@cmake --build $(OUT) -j $(JOBS)

test: build  ## Run all tests
	@ctest --test-dir $(OUT) --output-on-failure -j $(JOBS)

demo: build  ## Answer a question about a long log book on one rank and on several
	@$(OUT)/bin/runahead demo

serve: build  ## Serve the demo model: a chat page and OpenAI's API at http://127.0.0.1:8080
	@$(OUT)/bin/runahead serve --model models/demo --devices cpu:2

bench: build  ## Time strategies, partitions and ranks on a random-weight model
	@tools/bench.sh $(OUT)/bin/runahead "$(BUILD)/bench"

fuzz: deps  ## Feed broken files to everything that reads files, SECONDS on each kind (600)
	@tools/fuzz.sh $(or $(SECONDS),600)

package: build  ## Make a Debian package: build/release/package/*.deb
	@tools/install_deps.sh dpkg-dev file
	@cpack --config $(OUT)/CPackConfig.cmake

format: deps  ## Format the C++ sources in place
	@tools/format.sh

lint: deps  ## Check format, names, the order of rooms and common mistakes
	@tools/lint.sh

clean:  ## Remove everything that was built
	rm -rf build
