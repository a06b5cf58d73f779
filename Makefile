# Shoal: build, run on this machine, test. `make help` lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

SHOAL_DATA      ?= var
SHOAL_PORT_BASE ?= 20000
export SHOAL_DATA SHOAL_PORT_BASE

COMMANDS := switchd boxd vaultd shoalctl shoal-agent shoal-firstboot
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -X shoal/daemons/internal/kit.Version=$(VERSION)

# What `make images` builds: all roles, in all formats.
ROLES   ?=
FORMATS ?= qcow2,raw,ova

# Time for each fuzz target of `make fuzz`, and which packages are looked at.
FUZZTIME ?= 20s
PACKAGES ?= ./...

.PHONY: help
help: ## Show this list
	@echo "Shoal $(VERSION). Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings: SHOAL_DATA=$(SHOAL_DATA) (data folder)  SHOAL_PORT_BASE=$(SHOAL_PORT_BASE) (SMTP on $$(($(SHOAL_PORT_BASE)+25)), IMAP on $$(($(SHOAL_PORT_BASE)+143)) ...)"

.PHONY: build
build: ## Build the programs into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(COMMANDS:%=./daemons/%)

.PHONY: up
up: build ## Start the whole service on this machine and follow its logs (Ctrl-C stops it)
	@scripts/install-deps haproxy
	@exec bin/shoalctl up

.PHONY: down
down: ## Stop the service that `make up` started
	@if [ -x bin/shoalctl ]; then exec bin/shoalctl down; \
	elif [ -e '$(SHOAL_DATA)/run/lock' ]; then go run ./daemons/shoalctl --data '$(SHOAL_DATA)' down; \
	else echo "nothing was started on $(SHOAL_DATA)"; fi

.PHONY: install-deps
install-deps: ## Install with apt what the service and its tests need
	@scripts/install-deps all

.PHONY: check
check: ## Look at the code without running it: format, vet, staticcheck, floors, docs, scripts
	@scripts/check

.PHONY: test
test: build ## Everything: check, unit tests, wire dialogues, cluster, images, NFS (root; about forty minutes on two cores)
	@scripts/test

.PHONY: unit
unit: ## Unit tests and in-process wire dialogues only
	@scripts/test unit

.PHONY: cluster
cluster: build ## Black-box tests of the built service only
	@scripts/test cluster

.PHONY: test-disk
test-disk: ## Power cuts on real ext4 and XFS (root; half a minute)
	@scripts/install-deps e2fsprogs xfsprogs
	@scripts/test disk

.PHONY: test-nfs
test-nfs: ## The store on real NFS: several kernels on this machine (root; about five minutes)
	@scripts/install-deps nfs
	@scripts/test nfs

.PHONY: test-ldap-load
test-ldap-load: build ## OpenLDAP's own load clients against vaultd; builds them from Debian's source first (three minutes)
	@scripts/install-deps slapd
	@scripts/ldap-load-clients

.PHONY: model
model: ## The store's protocol as models, every interleaving searched by spin (one minute)
	@scripts/install-deps model
	go test -count=1 -v -timeout 30m ./tests/model

.PHONY: model-large
model-large: ## The same with larger parameters (up to 9 GB of memory, half an hour and more)
	@scripts/install-deps model
	SHOAL_MODEL=large go test -count=1 -v -timeout 8h ./tests/model

# How long `make soak` goes on.
SOAK ?= 4h

.PHONY: soak
soak: ## Histories with faults on real NFS, for SOAK (4h), each checked for linearizability (root)
	@scripts/install-deps nfs
	SHOAL_NFS_SOAK='$(SOAK)' go test -count=1 -v -timeout 0 -run '^TestHistories$$' ./tests/nfs

.PHONY: terraform
terraform: build ## Terraform: the provider, its acceptance tests on loopback, the tests of all modules (root)
	@scripts/install-deps terraform
	@scripts/terraform check
	SHOAL_BIN=$$PWD/bin go test -count=1 -v -timeout 15m ./tests/terraform

.PHONY: terraform-docs
terraform-docs: ## Write the reference of the provider's resources anew, from their schemas
	@scripts/terraform docs

.PHONY: race
race: ## Unit tests under the race detector (long)
	go test -race -timeout 30m ./daemons/...

.PHONY: bench
bench: build ## Measure beside Debian's Dovecot, Postfix and slapd (root; BENCH='-only lmtp' for a part)
	@scripts/install-deps bench
	go run ./tests/bench -bin bin $(BENCH)

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (20s)
	@scripts/fuzz '$(FUZZTIME)' '$(PACKAGES)'

.PHONY: man
man: build ## Write the manual pages into dist/man, and look whether they are well-formed
	@scripts/install-deps man-db
	@rm -rf dist/man && mkdir -p dist/man
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || date +%s) bin/shoalctl man dist/man
	@cp docs/man/*.8 dist/man/
	@for page in dist/man/*.8; do \
		warnings=$$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z $$page 2>&1 >/dev/null); \
		if [ -n "$$warnings" ]; then echo "$$warnings"; exit 1; fi; \
	done
	@echo "$$(ls dist/man | wc -l) pages in dist/man; read one: man -l dist/man/shoalctl.8"

.PHONY: completion
completion: build ## Write completions for bash, zsh and fish into dist/completion
	@mkdir -p dist/completion
	@bin/shoalctl completion bash > dist/completion/shoalctl.bash
	@bin/shoalctl completion zsh > dist/completion/_shoalctl
	@bin/shoalctl completion fish > dist/completion/shoalctl.fish

.PHONY: deb
deb: ## Build the Debian packages into dist/deb
	@scripts/install-deps dpkg-dev
	@go run ./images/tool deb -out dist/deb

.PHONY: images
images: ## Build the images of all roles into dist/images (root; ROLES='box lb', FORMATS=qcow2,raw,ova)
	@scripts/install-deps images
	@go run ./images/tool images -out dist/images -formats $(FORMATS) $(ROLES)

.PHONY: test-packages
test-packages: ## Packages and images: built, looked at, started in containers (root)
	@scripts/install-deps images
	@scripts/test images

.PHONY: test-images
test-images: ## Boot an image of each role in QEMU: time to ready, memory, first boot, data disk (root; about ten minutes)
	@scripts/install-deps boot
	go test -count=1 -v -timeout 60m ./tests/images/boot

.PHONY: test-appliance
test-appliance: build ## The whole service on virtual machines of libvirt, by one terraform apply (root; about 20 minutes under emulation)
	@scripts/install-deps libvirt
	nice -n 10 go test -count=1 -v -timeout 4h ./tests/appliance-libvirt

.PHONY: packer
packer: ## Look at Packer's templates (packer validate)
	@scripts/install-deps packer
	@packer/validate

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist

.PHONY: clean-data
clean-data: ## Remove the data folder: mail, accounts, certificates, everything
	@scripts/clean-data
