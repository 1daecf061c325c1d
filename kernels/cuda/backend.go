package cuda

import (
	"errors"
	"fmt"
	"sync"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// Options configures a backend.
type Options struct {
	DType kernels.DType // type of weights and operands; Auto means bfloat16

	// The options below are for benchmarks that compare ways of choosing an algorithm of cuBLAS. Without cuBLAS they
	// have no effect. Backend.Name contains them, because they may change the bits of results.

	// Tile is the tile that the backend prefers in bf16 on a Hopper GPU (see largeRows), as a number of
	// cublasLtMatmulTile_t. 0 stands for the tile of 128 by 128. With −1 the backend prefers none and uses the first
	// usable algorithm that cuBLAS offers for a matrix product.
	Tile int32
	// FreeAlgorithm asks cuBLAS again whenever the number of rows changes, and uses the first usable algorithm, even if
	// the algorithm splits the inner dimension. The bits of a sequence's embedding may then differ from batch to batch.
	FreeAlgorithm bool
}

// Backend is one GPU. It implements kernels.Backend.
type Backend struct {
	device   *gpu.Device
	dtype    kernels.DType
	products *products // nil without cuBLAS
	cublas   Cublas

	loading   sync.Mutex // held while a weight is loaded; guards staging
	staging   staging
	resources gpu.Resources // memory, streams and events of products and staging
}

// ErrUnavailable is wrapped by the error that tells why this machine or one of its devices cannot run the package at
// all, for example because the driver is missing or too old.
var ErrUnavailable = driver.ErrUnavailable

// leastMajor is the least major compute capability on which the kernels run. It is that of Ampere, the first
// architecture with bfloat16 and asynchronous copies.
const leastMajor = 8

// Open opens the device with the given ordinal. Ordinals count the devices that CUDA_VISIBLE_DEVICES leaves, as in
// PyTorch. If the machine or the device cannot run the package at all, the error wraps ErrUnavailable. The same device
// may be opened more than once.
func Open(ordinal int, opts Options) (*Backend, error) {
	images, err := embeddedImages()
	if err != nil {
		return nil, err
	}
	places := driver.System()
	cuda, _, err := places.FindCUDA()
	if err != nil {
		return nil, err
	}
	return open(cuda, ordinal, opts, images, cublasIn(places))
}

// findCublas finds a cuBLAS for a driver of the given major CUDA version. It also returns the places where it has
// searched.
type findCublas func(cudaMajor int) (*driver.CublasLt, []Attempt, error)

// open does the same as Open, but everything that depends on the machine is a parameter.
func open(cuda *driver.CUDA, ordinal int, opts Options, images []gpu.Image, find findCublas) (*Backend, error) {
	if opts.Tile != 0 && opts.FreeAlgorithm {
		return nil, errors.New("the options Tile and FreeAlgorithm exclude each other")
	}
	_, list, err := describe(cuda, images)
	if err == nil && (ordinal < 0 || ordinal >= len(list)) {
		err = driver.Unavailable("there is no device %d: %d visible, counted from 0 after CUDA_VISIBLE_DEVICES",
			ordinal, len(list))
	}
	if err == nil {
		err = list[ordinal].Err
	}
	if err != nil {
		return nil, err
	}
	d, err := gpu.Open(cuda, list[ordinal].Info, images)
	if err != nil {
		return nil, outOfMemory(err)
	}
	if opts.DType == kernels.Auto {
		opts.DType = kernels.BF16 // every device that the package accepts supports bfloat16
	}
	b := &Backend{device: d, dtype: opts.DType}
	var lt *driver.CublasLt
	lt, b.cublas.Searched, b.cublas.Err = find(d.Driver / 1000)
	if b.cublas.Err == nil {
		var p *products
		b.cublas.Err = b.do(func(c *gpu.Context) { p = newProducts(c, &b.resources, lt, d.Major, opts) })
		if b.cublas.Err == nil {
			b.products, b.cublas.Version = p, p.version
		}
	}
	return b, nil // if there is no cuBLAS, b.cublas.Err tells why, and the package's own kernels multiply
}

// usable returns the reason why the kernels cannot run on a device, or nil.
func usable(i gpu.Info, images []gpu.Image) error {
	if i.Major < leastMajor {
		return driver.Unavailable("%s (device %d) has compute capability %d.%d, and %d.0 is the least",
			i.Name, i.Ordinal, i.Major, i.Minor, leastMajor)
	}
	return gpu.CheckDriver(i.Driver, images)
}

// do calls the function work with the device's context.
func (b *Backend) do(work func(*gpu.Context)) error { return outOfMemory(b.device.Do(work)) }

// outOfMemory returns err. If err says that the device is out of memory, the result also wraps kernels.ErrOutOfMemory.
func outOfMemory(err error) error {
	if errors.Is(err, driver.ErrOutOfMemory) {
		return memoryError{err}
	}
	return err
}

type memoryError struct{ error }

func (e memoryError) Unwrap() []error { return []error{e.error, kernels.ErrOutOfMemory} }

// Name lists the things on which the bits of the results depend: the device, the CUDA version of the driver (the driver
// compiles the kernels), the library for matrix products with its options, and the operands' type.
func (b *Backend) Name() string {
	d, gemm := b.device, "own products"
	if b.products != nil {
		gemm = b.products.name
	}
	return fmt.Sprintf("cuda %s, sm_%d%d, driver CUDA %s, %s, %s",
		d.Name, d.Major, d.Minor, gpu.Version(d.Driver), gemm, b.dtype)
}

// Device describes the device.
func (b *Backend) Device() Device { return Device{Info: b.device.Info} }

// Cublas describes the cuBLAS that computes matrix products, or the reason why there is none.
func (b *Backend) Cublas() Cublas { return b.cublas }

// Close releases the device.
func (b *Backend) Close() error {
	b.loading.Lock()
	defer b.loading.Unlock()
	err := b.do(func(c *gpu.Context) {
		b.resources.Free(c)
		if b.products != nil {
			b.products.close()
		}
	})
	b.staging = staging{}
	b.device.Close()
	return err
}

// cublasVariable is the environment variable that selects cuBLAS. Its value is the path of a libcublasLt file, the path
// of a folder that contains such a file, or "none" to do without cuBLAS.
const cublasVariable = "EMBED_CUBLAS"

// ErrCublasOff is wrapped by Cublas.Err if the user has turned cuBLAS off.
var ErrCublasOff = errors.New(cublasVariable + "=none")

// cublasIn returns a function that searches for cuBLAS: first at the place that the environment variable names, then at
// the usual places. If the variable is "none", the function returns ErrCublasOff.
func cublasIn(p driver.Places) findCublas {
	return func(cudaMajor int) (*driver.CublasLt, []Attempt, error) {
		given := p.Getenv(cublasVariable)
		if given == "none" {
			return nil, nil, ErrCublasOff
		}
		return p.FindCublasLt(given, cudaMajor)
	}
}
