# Everything a developer or CI does. What the targets make lands in .build, and can be made again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := $(CURDIR)/.build/bin
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
TOOLS := $(addprefix $(BIN)/,docker-compose ec2-metadata-mock staticcheck vegeta)
PACKER_TOOLS := $(addprefix $(BIN)/,packer packer-plugin-amazon packer-plugin-qemu packer-sdc)

# What mounts, or talks to the engine, runs as root; a person's sudo would forget where Go and the demo's wishes are.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo env "PATH=$$PATH" "DEMO_ONCE=$${DEMO_ONCE:-}")

DESTDIR ?=

.PHONY: help build install tools packer-tools plugin plugin-release plugin-check plugin-test image-e2e image-bench setup test infra-test drift faults drain-e2e fuzz lint demo demo-aws bench clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## the agent, a static binary: .build/bin/flowagent
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/flowagent ./cmd/flowagent

install: build ## the agent, its units and its group, on this machine or below DESTDIR
	mkdir -p $(DESTDIR)/
	$(BIN)/flowagent image install --root $(DESTDIR)/ --profile agent --enable=false

tools: $(TOOLS) ## the programs that tests run, pinned in tools/go.mod

$(TOOLS): tools/go.mod tools/go.sum
	CGO_ENABLED=0 scripts/again.sh 'the build of $(@F)' go -C tools build -trimpath -ldflags '-s -w $(FLAGS)' -o $@ $(PACKAGE)
	@touch $@

$(BIN)/docker-compose: PACKAGE = github.com/docker/compose/v2/cmd
$(BIN)/docker-compose: FLAGS = -X github.com/docker/compose/v2/internal.Version=$(shell go -C tools list -m -f '{{.Version}}' github.com/docker/compose/v2)
$(BIN)/ec2-metadata-mock: PACKAGE = github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock
$(BIN)/staticcheck: PACKAGE = honnef.co/go/tools/cmd/staticcheck
$(BIN)/vegeta: PACKAGE = github.com/tsenart/vegeta/v12

packer-tools: $(PACKER_TOOLS) ## Packer, its plugins for AWS and QEMU, and packer-sdc, pinned in tools/packer/go.mod

$(PACKER_TOOLS): tools/packer/go.mod tools/packer/go.sum
	CGO_ENABLED=0 scripts/again.sh 'the build of $(@F)' go -C tools/packer build -trimpath -ldflags '-s -w' -o $@ $(PACKAGE)
	@touch $@

$(BIN)/packer: PACKAGE = github.com/hashicorp/packer
$(BIN)/packer-plugin-amazon: PACKAGE = github.com/hashicorp/packer-plugin-amazon
$(BIN)/packer-plugin-qemu: PACKAGE = github.com/hashicorp/packer-plugin-qemu
$(BIN)/packer-sdc: PACKAGE = github.com/hashicorp/packer-plugin-sdk/cmd/packer-sdc

plugin: ## the Packer plugin, a development version: .build/bin/packer-plugin-flowagent
	CGO_ENABLED=0 go -C packer/plugin build -trimpath -ldflags '-s -w' -o $(BIN)/packer-plugin-flowagent .

# The version is git's newest tag, or PLUGIN_VERSION=v1.2.3.
PLUGIN_VERSION ?= $(shell git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null)

plugin-release: ## the plugin's archives and their sums, as packer init wants them, for PLUGIN_VERSION: .build/plugin-release
	go -C packer/plugin run ./release -version='$(PLUGIN_VERSION)' -dir=$(CURDIR)/.build/plugin-release

plugin-check: plugin $(BIN)/packer-sdc ## what is generated is what is committed, and Packer finds the plugin well made
	packer/plugin/generate.sh --check
	cd $(BIN) && ./packer-sdc plugin-check packer-plugin-flowagent

plugin-test: setup packer-tools plugin-check ## the plugin's tests: Packer bakes machines of the lab, and publishes to a stand-in of AWS
	scripts/plugin-test.sh

setup: ## installs what this machine lacks for the tests (Debian, Ubuntu)
	scripts/setup.sh lab aws postgres redis machine nodefiles compiler lint

test: setup tools lint ## every check and test: in a private node with an engine of its own, and of infrastructure/ beside it
	@scripts/infra-test.sh >.build/infra-test.out 2>&1 & infra=$$! status=0; \
	scripts/test.sh || status=1; \
	wait $$infra || status=1; \
	cat .build/infra-test.out; \
	exit $$status

drain-e2e: tools ## replaces ten nodes under load, behind nginx, and counts what was lost: DRAIN_FLAGS="-replacements 2 …"
	@trap 'scripts/setup.sh engine-stop' EXIT; scripts/setup.sh engine lab compiler; \
	$(AS_ROOT) examples/wms/build.sh; \
	scripts/drain-e2e.sh $(DRAIN_FLAGS)

faults: setup tools ## every trigger of a drain against everything that can go wrong in one, as a matrix; minutes
	scripts/faults.sh

infra-test: ## infrastructure/ against a stand-in for AWS: terraform test, production applied, planned and read back; minutes
	scripts/infra-test.sh

ENVIRONMENT ?= production

drift: ## what in AWS is no longer as Terraform left it, for ENVIRONMENT (production); needs credentials, changes nothing
	scripts/drift.sh $(ENVIRONMENT)

fuzz: ## the readers of PostgreSQL's and Redis' answers for FUZZTIME (1m) each, other fuzz functions for ten seconds
	scripts/fuzz.sh

lint: $(BIN)/staticcheck ## formatting, go vet, staticcheck, shellcheck
	scripts/setup.sh lint
	scripts/lint.sh

demo: build tools ## a node on this machine's engine, until Ctrl-C; DEMO_ONCE=1 tests it and cleans up
	@trap 'scripts/setup.sh engine-stop' EXIT; scripts/setup.sh engine demo; \
	$(AS_ROOT) examples/wms/build.sh; \
	$(AS_ROOT) scripts/demo.sh onprem

demo-aws: build tools ## the same node with stand-ins for Secrets Manager, ECR and instance metadata
	@trap 'scripts/setup.sh engine-stop' EXIT; scripts/setup.sh engine lab; \
	$(AS_ROOT) examples/wms/build.sh; \
	scripts/demo-aws.sh

bench: build tools ## boot time beside a boot script's, what /health costs beside net/http, what an idle agent needs
	scripts/setup.sh lab bench postgres
	test/bench/run.sh

image-e2e: $(BIN)/image-e2e ## bakes a golden image in a virtual machine and proves it on two clones; no cloud, 20 minutes: IMAGE_FLAGS="-keep …"
	$(AS_ROOT) $(BIN)/image-e2e $(IMAGE_FLAGS)

image-bench: $(BIN)/image-e2e ## bakes the same image, and boots a clone beside the same machine with a boot script
	scripts/setup.sh registry
	$(AS_ROOT) $(BIN)/image-e2e -bench $(IMAGE_FLAGS)

.PHONY: $(BIN)/image-e2e
$(BIN)/image-e2e: build packer-tools plugin
	scripts/setup.sh image
	go build -o $@ ./test/image

clean: ## removes .build, the lab's images included
	rm -rf .build 2>/dev/null || sudo rm -rf .build
