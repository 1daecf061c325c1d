# embed: see README.md. The targets that a user needs are demo and test.

GO ?= go
SHELL := bash
TOOL = $(GO) tool -modfile=$(CURDIR)/internal/tools/go.mod

.PHONY: build demo test check fmt vet staticcheck scripts generated race noasm nvml mutations goldens goldens-gpu parity bench ptx
.PHONY: deadcode readback cross dist arm64 fuzz crash compare softgpu gpu-bundle rehearse test-gpu bench-gpu clean
.PHONY: test-slurm test-snakemake lint-nextflow lint-k8s

build: ## builds ./embed
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o embed ./cmd/embed

demo: build ## runs the main job, offline, on two small files
	./embed --dnabert-model synthetic:dnabert-s-2l --esm-model synthetic:esm2-8m --force -o demo testdata/contigs.fna testdata/proteins.faa
	@echo "The checkpoints of this demo are synthetic: they have the real architectures, and their embeddings carry no biology."

test: ## every test, with the portable and the assembly kernels
	$(GO) test ./...

# What CI runs. vet, nvml, noasm and cross check every package with each set of build tags; go test would do so again.
# The flags are those of build, so that all packages are compiled once.
check: export GOFLAGS := $(GOFLAGS) -trimpath -vet=off
check: export CGO_ENABLED := 0
check: build fmt vet staticcheck deadcode scripts generated test goldens-gpu race noasm nvml cross arm64 crash fuzz

fmt:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "gofmt would change:" $$files; exit 1; }

vet:
	$(GO) vet ./...

staticcheck:
	$(TOOL) staticcheck ./...

deadcode: ## functions that nothing calls, tests included
	@dead=$$($(TOOL) deadcode -test ./...) || exit 1; [ -z "$$dead" ] || { echo "$$dead"; exit 1; }

readback: ## DuckDB, Arrow and hyparquet of npm in build/readback, which the tests of outputs use if READBACK_NODE names it
	mkdir -p build/readback && cp internal/readback/package.json build/readback/
	npm install --silent --no-fund --no-audit --prefix build/readback

scripts: ## the shell scripts parse, and the steps of a visit to a GPU fit their time
	@for f in $$(git ls-files '*.sh'); do bash -n $$f || exit 1; done
	@bench/gpu/rehearse.sh limits

generated: ## the assembly is what its generator writes
	@sum() { cat {kernels/cpu,bench/peak}/*_{amd64,arm64}.* | sha256sum; }; before=$$(sum); \
	(cd kernels/cpu/_gen && $(GO) vet ./... && $(GO) test ./neon && $(GO) run . && $(GO) run ./neon) || exit 1; \
	[ "$$before" = "$$(sum)" ] || { echo "the generated assembly was not current"; exit 1; }

race: ## the race detector makes long sequences too slow: -short leaves them out, and tests of one goroutine
	CGO_ENABLED=1 $(GO) test -race -short ./...

nvml: ## the sensors of GPUs, read without cgo, and by NVIDIA's package with cgo
	CGO_ENABLED=0 $(GO) test ./internal/monitor
	CGO_ENABLED=1 CGO_CFLAGS=-Wno-deprecated-declarations $(GO) vet -tags gonvml ./internal/monitor
	CGO_ENABLED=1 CGO_CFLAGS=-Wno-deprecated-declarations $(GO) test -tags gonvml ./internal/monitor

noasm: ## the portable kernels alone
	$(GO) vet -tags noasm ./...
	$(GO) test -tags noasm -short ./kernels/cpu ./transformer

# Without optimisations the packages compile in two thirds of the time.
FAST = -gcflags=all='-N -l'

cross: ## the program and its tests compile for the other platforms, and without CUDA
	GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet $(FAST) ./...
	GOOS=windows CGO_ENABLED=0 $(GO) vet $(FAST) ./...
	CGO_ENABLED=0 $(GO) vet -tags static ./...

dist: ## the files of a release, in dist: archives, Python wheels and SHA256SUMS; the same bytes for the same commit
	$(GO) run ./deploy/dist -o dist

arm64: ## the tests of computing, with the goldens, and of reading on arm64; needs qemu-user
	GOARCH=arm64 $(GO) test -exec 'qemu-aarch64 -cpu max' -short ./kernels ./kernels/cpu ./tokenizer ./weights ./internal/half ./internal/seqio

fuzz: ## every fuzz target for two seconds, or for FUZZTIME, which coverage guides
	internal/tools/fuzz.sh $(FUZZTIME)

crash: ## kills runs of the program at random moments, a quarter of a minute or TIME for each of two tests; Linux
	$(GO) test ./cmd/embed -count 1 -v -timeout 0 -run '^TestKilled(InsideAFile)?$$' -crash.time $(or $(TIME),15s)

compare: ## throughput against another commit, in turns: BASE=COMMIT, by default the last tag, and BENCH=PATTERN
	bench/compare.sh '$(BASE)' '$(BENCH)'

mutations: ## breaks the models in one place at a time: the tests have to fail each time; takes minutes
	$(GO) test ./transformer -v -timeout 60m -run TestMutations -mutations

goldens: ## takes the goldens of the repository anew from the large ones in SHARED
	$(GO) test ./transformer/goldentest -from $(abspath $(or $(SHARED),../shared))/goldens/synthetic

parity: ## every golden of every model; takes 12 GB of memory
	$(GO) test ./bench -count 1 -v -run TestParity -timeout 60m -parity.full

bench: ## throughput; -bench takes a pattern, for example BENCH=Forward/esm2-8m
	$(GO) test ./bench -run '^$$' -bench '$(or $(BENCH),.)' -timeout 60m

ptx: ## compiles the CUDA kernels; needs nvcc and ptxas of CUDA 12.4
	kernels/cuda/src/build.sh

goldens-gpu: softgpu ## two models in both 16-bit types on the software GPU, where the goldens of ../shared are at hand
	@for dtype in bf16 fp16; do LD_LIBRARY_PATH=$(CURDIR)/build/softgpu $(GO) test ./bench -count 1 -v -run 'TestParity/^(esm2-8m|dnabert-s-2l)$$' \
		-args -bench.device cuda -bench.dtype $$dtype | grep -v '^=== ' ; [ $${PIPESTATUS[0]} = 0 ] || exit 1; done

softgpu: ## a software GPU in build/softgpu that runs the committed PTX; needs a C++ compiler
	$(GO) run ./kernels/cuda/softgpu/build build/softgpu kernels/cuda/ptx/*.ptx

gpu-bundle: ## what a machine with a GPU needs, in build/gpu and build/gpu.tgz
	bench/gpu/bundle.sh

rehearse: softgpu gpu-bundle ## a visit to a machine with a GPU, on the software GPU, with faults; a quarter of an hour
	bench/gpu/rehearse.sh

test-slurm: ## deploy/slurm under Slurm, with interruptions; Debian or Ubuntu, as root: installs slurm-wlm and munge
	deploy/test/slurm.sh

test-snakemake: ## deploy/snakemake with interruptions; installs Debian's snakemake, as root, if there is none
	deploy/test/snakemake.sh

lint-nextflow: ## deploy/nextflow with Groovy's parser, from npm; needs Java
	deploy/test/nextflow.sh

lint-k8s: ## deploy/k8s/embed.yaml against the types of Kubernetes' API
	cd deploy/k8s/lint && $(GO) run . ../embed.yaml

test-gpu: gpu-bundle ## the CUDA backend on this machine's GPU: nothing may be missing
	DEADLINE=3600 OUT=build/visit-1 build/gpu/visit.sh 1

bench-gpu: gpu-bundle ## this machine's GPU, beside PyTorch
	DEADLINE=3600 OUT=build/visit-2 build/gpu/visit.sh 2
	DEADLINE=3600 OUT=build/visit-3 build/gpu/visit.sh 3

clean:
	rm -rf embed demo build dist
