package cuda

import (
	"errors"
	"fmt"
	"sync"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// Options says how a device computes.
type Options struct {
	DType DType // Auto for bfloat16

	// The rest is for measurements of the cost of the choice of algorithms, and part of Backend.Name because it may
	// decide bits. Without cuBLAS it changes nothing.

	// FirstAlgorithm takes the first algorithm that cuBLAS offers, also where there is a preferred tile.
	FirstAlgorithm bool
	// FreeAlgorithm asks for an algorithm for the very rows of each batch and takes the first answer, whether it sums
	// in one piece or not: the way of programs that do not promise the same bits for a row in every batch.
	FreeAlgorithm bool
}

// Backend is one GPU. It implements kernels.Backend.
type Backend struct {
	device   *gpu.Device
	dtype    DType
	products *products // nil without cuBLAS
	cublas   Cublas

	loading sync.Mutex // one weight is loaded at a time; guards staging
	staging *gpu.Staging
}

// ErrUnavailable is in the chain of an error that says why this machine, or one of its devices, cannot run the package
// at all: no driver, no device, a driver or a device too old.
var ErrUnavailable = driver.ErrUnavailable

// leastMajor is the compute capability that the kernels need: Ampere, the first with bfloat16 and asynchronous copies.
const leastMajor = 8

// Open takes a device into use, counted as PyTorch counts: after CUDA_VISIBLE_DEVICES. ErrUnavailable is in the chain
// of an error that means that the CPU has to serve. The same device may be opened more than once.
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

// findCublas looks for a cuBLAS that runs on a driver of that CUDA major.
type findCublas func(cudaMajor int) (*driver.CublasLt, []Attempt, error)

// open is Open with everything that a machine brings as a parameter.
func open(cuda *driver.CUDA, ordinal int, opts Options, images []gpu.Image, find findCublas) (*Backend, error) {
	if opts.FirstAlgorithm && opts.FreeAlgorithm {
		return nil, errors.New("the first algorithm and one for the rows of each batch exclude each other")
	}
	d, err := openDevice(cuda, ordinal, images)
	if err != nil {
		return nil, outOfMemory(err)
	}
	b := &Backend{device: d, dtype: opts.DType}
	if b.dtype == Auto {
		b.dtype = BF16
	}
	var lt *driver.CublasLt
	lt, b.cublas.Searched, b.cublas.Err = find(d.Driver / 1000)
	if b.cublas.Err == nil {
		b.cublas.Err = b.do(func(c *gpu.Context) (err error) {
			b.products, err = newProducts(c, lt, b.dtype, d.Major, opts)
			return err
		})
	}
	if b.products != nil {
		b.cublas.Version = b.products.version
	}
	return b, nil // without cuBLAS the package's own products serve
}

func openDevice(cuda *driver.CUDA, ordinal int, images []gpu.Image) (*gpu.Device, error) {
	version, count, err := gpu.Count(cuda)
	if err != nil {
		return nil, err
	}
	if ordinal < 0 || ordinal >= count {
		return nil, driver.Unavailable(nil, "there is no device %d: %d visible, counted from 0 after CUDA_VISIBLE_DEVICES",
			ordinal, count)
	}
	info, err := gpu.Describe(cuda, ordinal, version)
	if err != nil {
		return nil, err
	}
	if err := usable(info, images); err != nil {
		return nil, err
	}
	return gpu.Open(cuda, info, images)
}

// usable says why the kernels cannot run on a device, or nil.
func usable(i gpu.Info, images []gpu.Image) error {
	if i.Major < leastMajor {
		return driver.Unavailable(nil, "%s (device %d) has compute capability %d.%d, and %d.0 is the least",
			i.Name, i.Ordinal, i.Major, i.Minor, leastMajor)
	}
	return gpu.CheckDriver(i.Driver, images)
}

// do runs work with the device's context.
func (b *Backend) do(work func(*gpu.Context) error) error { return outOfMemory(b.device.Do(work)) }

// outOfMemory makes a device that is out of memory kernels.ErrOutOfMemory.
func outOfMemory(err error) error {
	if errors.Is(err, driver.ErrOutOfMemory) {
		return memoryError{err}
	}
	return err
}

type memoryError struct{ error }

func (e memoryError) Unwrap() []error { return []error{e.error, kernels.ErrOutOfMemory} }

// Name lists all that decides the bits of the results: the device, the driver that compiles the kernels, the products,
// with options that are not the usual ones, and the type of the operands.
func (b *Backend) Name() string {
	d, gemm := b.device, "own products"
	if b.products != nil {
		gemm = b.products.name()
	}
	return fmt.Sprintf("cuda %s, sm_%d%d, driver CUDA %s, %s, %s",
		d.Name, d.Major, d.Minor, gpu.Version(d.Driver), gemm, b.dtype)
}

// Device describes the device.
func (b *Backend) Device() Device { return Device{Info: b.device.Info} }

// Cublas says which cuBLAS multiplies, or why none does.
func (b *Backend) Cublas() Cublas { return b.cublas }

// Close lets go of the device.
func (b *Backend) Close() error {
	b.loading.Lock()
	defer b.loading.Unlock()
	err := b.do(func(c *gpu.Context) error {
		b.staging.Free(c)
		if b.products != nil {
			b.products.close(c)
		}
		return nil
	})
	b.staging = nil
	b.device.Close()
	return err
}

// cublasVariable names the environment variable that comes before every other place: a libcublasLt file or a folder
// that holds one, or "none".
const cublasVariable = "EMBED_CUBLAS"

// ErrCublasOff is in the chain of Cublas.Err when the user does not want cuBLAS.
var ErrCublasOff = errors.New(cublasVariable + "=none")

// cublasIn looks for cuBLAS where the user says, then everywhere.
func cublasIn(p driver.Places) findCublas {
	return func(cudaMajor int) (*driver.CublasLt, []Attempt, error) {
		given := p.Getenv(cublasVariable)
		if given == "none" {
			return nil, nil, ErrCublasOff
		}
		return p.FindCublasLt(given, cudaMajor)
	}
}
