# README.md describes embed. Users need only the targets build, demo and test.

GO ?= go
SHELL := bash
TOOL = $(GO) tool -modfile=$(CURDIR)/internal/tools/go.mod

.PHONY: build demo test check fmt vet staticcheck scripts generated race noasm nvml mutations goldens goldens-gpu parity bench ptx
.PHONY: deadcode readback cross dist arm64 fuzz crash compare softgpu gpu-bundle rehearse test-gpu bench-gpu clean
.PHONY: test-slurm test-snakemake lint-nextflow lint-k8s

build: ## builds ./embed
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o embed ./cmd/embed

demo: build ## embeds two small files offline, with synthetic checkpoints
	./embed --dnabert-model synthetic:dnabert-s-2l --esm-model synthetic:esm2-8m --force -o demo testdata/contigs.fna testdata/proteins.faa
	@echo "The checkpoints of this demo are synthetic: they have the real architectures, and their embeddings carry no biology."

test: ## runs every test; those of the CPU kernels run with portable Go and with assembly
	$(GO) test ./...

# CI runs the target check. It turns off the vet of go test (-vet=off), because vet, nvml, noasm and cross vet what each
# set of build tags changes. It uses the flags of the target build, so that build and test share compiled packages.
check: export GOFLAGS := $(GOFLAGS) -trimpath -vet=off
check: export CGO_ENABLED := 0
check: build fmt vet staticcheck deadcode scripts generated test goldens-gpu race noasm nvml cross arm64
	$(MAKE) -j 2 --output-sync crash fuzz # each runs for a fixed time

# With a larger heap the compiler takes an eighth less time, and the linters a third.
build vet staticcheck deadcode cross: export GOGC := 400

fmt:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "gofmt would change:" $$files; exit 1; }

vet:
	$(GO) vet ./...

staticcheck:
	$(TOOL) staticcheck ./...

deadcode: ## fails if there is a function that neither a program nor a test calls
	@dead=$$($(TOOL) deadcode -test ./...) || exit 1; [ -z "$$dead" ] || { echo "$$dead"; exit 1; }

readback: ## installs npm's DuckDB, Arrow and hyparquet in build/readback; READBACK_NODE tells tests to use them
	mkdir -p build/readback && cp internal/readback/package.json build/readback/
	npm install --silent --no-fund --no-audit --prefix build/readback

scripts: ## checks the syntax of the shell scripts, and the time limits of the steps in bench/gpu/visit.sh
	@for f in $$(git ls-files '*.sh'); do bash -n $$f || exit 1; done
	@bench/gpu/rehearse.sh limits

generated: ## fails if the assembly files are not those that their generator writes
	@sum() { cat {kernels/cpu,bench/peak}/*_{amd64,arm64}.* | sha256sum; }; before=$$(sum); \
	(cd kernels/cpu/_gen && $(GO) vet ./... && $(GO) test ./neon && $(GO) run . && $(GO) run ./neon) || exit 1; \
	[ "$$before" = "$$(sum)" ] || { echo "the generated assembly was not current"; exit 1; }

# A package that starts no goroutine is raced by the tests of the packages that call it.
race: ## runs the tests of packages that start goroutines with the race detector; -short leaves out the slow ones
	CGO_ENABLED=1 $(GO) test -race -short $$(git grep -lE '^\s*go |\.Go\(' -- '*.go' | xargs -n 1 dirname | sort -u | sed 's|^|./|')

nvml: ## tests reading the sensors of GPUs without cgo, and with cgo and NVIDIA's package go-nvml
	CGO_ENABLED=0 $(GO) test ./internal/monitor
	CGO_ENABLED=1 CGO_CFLAGS=-Wno-deprecated-declarations $(GO) vet -tags gonvml ./internal/monitor
	CGO_ENABLED=1 CGO_CFLAGS=-Wno-deprecated-declarations $(GO) test -tags gonvml ./internal/monitor

noasm: ## tests the CPU kernels and the models in a build without assembly
	$(GO) vet -tags noasm ./kernels/cpu ./bench/peak
	$(GO) test -tags noasm -short ./kernels/cpu ./transformer

# Without optimisations, packages compile in two thirds of the time.
FAST = -gcflags=all='-N -l'

cross: ## builds the program for arm64, and checks that it and its tests compile for macOS, Windows and without CUDA
	GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/embed
	GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet $(FAST) ./...
	GOOS=windows CGO_ENABLED=0 $(GO) vet $(FAST) ./...
	CGO_ENABLED=0 $(GO) vet -tags static ./...

dist: ## builds the files of a release in dist; the same commit and version of Go give the same bytes
	$(GO) run ./deploy/dist -o dist

arm64: ## runs the tests of some packages, such as kernels/cpu and tokenizer, as arm64 programs; needs qemu-user
	GOARCH=arm64 $(GO) test -exec 'qemu-aarch64 -cpu max' -short ./kernels ./kernels/cpu ./tokenizer ./weights ./internal/half

fuzz: ## runs every fuzz target for one second, or for FUZZTIME with inputs guided by coverage
	internal/tools/fuzz.sh $(FUZZTIME)

crash: ## runs two tests that kill embed at random moments, each for 15 seconds or for TIME; Linux only
	$(GO) test ./cmd/embed -count 1 -v -timeout 0 -run '^TestKilled(InsideAFile)?$$' -crash.time $(or $(TIME),15s)

compare: ## compares throughput with that of BASE=COMMIT (default: last tag); BENCH=PATTERN (default: Forward/esm2-8m)
	bench/compare.sh '$(BASE)' '$(BENCH)'

mutations: ## breaks the code of the models in one place at a time; the tests must fail each time; takes minutes
	$(GO) test ./transformer -v -timeout 60m -run TestMutations -mutations

goldens: ## writes the goldens (expected results) in the repository anew, from the larger goldens in SHARED
	$(GO) test ./transformer/goldentest -from $(abspath $(or $(SHARED),../shared))/goldens/synthetic

parity: ## compares every model with all of its goldens; takes 12 GB of memory
	$(GO) test ./bench -count 1 -v -run TestParity -timeout 60m -parity.full

bench: ## measures throughput; BENCH=PATTERN selects benchmarks, for example BENCH=Forward/esm2-8m
	$(GO) test ./bench -run '^$$' -bench '$(or $(BENCH),.)' -timeout 60m

ptx: ## compiles the CUDA kernels; needs nvcc and ptxas of CUDA 12.4
	kernels/cuda/src/build.sh

goldens-gpu: softgpu ## compares two models in bf16 and fp16 on the software GPU with goldens, if ../shared has them
	@for dtype in bf16 fp16; do LD_LIBRARY_PATH=$(CURDIR)/build/softgpu $(GO) test ./bench -count 1 -v -run 'TestParity/^(esm2-8m|dnabert-s-2l)$$' \
		-args -bench.device cuda -bench.dtype $$dtype | grep -v '^=== ' ; [ $${PIPESTATUS[0]} = 0 ] || exit 1; done

softgpu: ## builds the software GPU in build/softgpu, which runs the committed PTX; needs a C++ compiler
	$(GO) run ./kernels/cuda/softgpu/build build/softgpu kernels/cuda/ptx/*.ptx

gpu-bundle: ## collects the files to test and measure on a machine with a GPU, in build/gpu and build/gpu.tgz
	bench/gpu/bundle.sh

rehearse: softgpu gpu-bundle ## runs bench/gpu/visit.sh on the software GPU, also with faults; takes 15 minutes
	bench/gpu/rehearse.sh

test-slurm: ## tests deploy/slurm, with interruptions; installs slurm-wlm and munge, as root, on Debian or Ubuntu
	deploy/test/slurm.sh

test-snakemake: ## tests deploy/snakemake, with interruptions; installs snakemake, as root, on Debian or Ubuntu
	deploy/test/snakemake.sh

lint-nextflow: ## checks the syntax of deploy/nextflow with Groovy's parser, from npm; needs Java
	deploy/test/nextflow.sh

lint-k8s: ## checks deploy/k8s/embed.yaml against the types of Kubernetes' API
	cd deploy/k8s/lint && $(GO) run . ../embed.yaml

test-gpu: gpu-bundle ## tests the CUDA backend on this machine's GPU; fails if a step is skipped
	DEADLINE=3600 OUT=build/visit-1 build/gpu/visit.sh 1

bench-gpu: gpu-bundle ## measures this machine's GPU with embed and, for comparison, with PyTorch
	DEADLINE=3600 OUT=build/visit-2 build/gpu/visit.sh 2
	DEADLINE=3600 OUT=build/visit-3 build/gpu/visit.sh 3

clean:
	rm -rf embed demo build dist
