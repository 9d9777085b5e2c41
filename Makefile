# What a person does with Runahead. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help deps build test demo bench fuzz format lint clean

PRESET ?= release
JOBS ?= $(shell nproc)
SOURCES = $(shell git ls-files '*.h' '*.cc' '*.cu' '*.cuh')

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps:  ## Install the Debian or Ubuntu packages that are missing (needs root or sudo)
	@tools/install_deps.sh

build: deps  ## Build everything; the program is build/release/bin/runahead
	@[ $(PRESET) != cuda ] || tools/install_cuda_deps.sh
	@cmake --preset $(PRESET) >build-$(PRESET).log 2>&1 || { cat build-$(PRESET).log; rm -f build-$(PRESET).log; exit 1; }
	@rm -f build-$(PRESET).log
	@cmake --build --preset $(PRESET) -j $(JOBS)

test: build  ## Run all tests
	@ctest --test-dir build/$(PRESET) --output-on-failure -j $(JOBS)

demo: build  ## Answer a question about a long log book on one rank and on several
	@build/$(PRESET)/bin/runahead demo

bench: build  ## Time strategies, partitions and ranks on a random-weight model
	@tools/bench.sh build/$(PRESET)/bin/runahead

fuzz: deps  ## Feed broken files to everything that reads files, SECONDS on each kind (600)
	@tools/fuzz.sh $(or $(SECONDS),600)

format:  ## Format the C++ sources in place
	@clang-format -i $(SOURCES)

lint: deps  ## Check format, names and common mistakes
	@tools/lint.sh

clean:  ## Remove everything that was built
	rm -rf build
