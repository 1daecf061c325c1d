package cuda

import (
	"errors"
	"fmt"
	"sync"
)

// Options says how a device computes.
type Options struct {
	DType DType // Auto for bfloat16

	// The rest is for measurements of what the choice of algorithms costs, and
	// part of Backend.Name because it may decide bits. Without cuBLAS it
	// changes nothing.

	// FirstAlgorithm takes the first algorithm that cuBLAS offers, also where
	// there is a preferred tile.
	FirstAlgorithm bool
	// FreeAlgorithm asks for an algorithm for the very rows of each batch and
	// takes the first answer, whether it sums in one piece or not: the way of
	// programs that do not promise the same bits for a row in every batch.
	FreeAlgorithm bool
}

// check refuses what contradicts itself.
func (o Options) check() error {
	if o.FirstAlgorithm && o.FreeAlgorithm {
		return errors.New("the first algorithm and one for the rows of each batch exclude each other")
	}
	return nil
}

// Backend is one GPU. It implements kernels.Backend.
type Backend struct {
	device   *device
	dtype    DType
	products *products // nil without cuBLAS; used on the device's thread
	noCublas error     // why products is nil
	searched []Attempt // for cuBLAS

	loading sync.Mutex // one weight is loaded at a time; guards staging
	staging *staging
}

// Open takes a device into use, counted as PyTorch counts: after
// CUDA_VISIBLE_DEVICES. ErrUnavailable is in the chain of an error that means
// that the CPU has to serve. The same device may be opened more than once.
func Open(ordinal int, opts Options) (*Backend, error) {
	images, err := embeddedImages()
	if err != nil {
		return nil, err
	}
	p := realPlaces()
	drv, _, err := p.findDriver()
	if err != nil {
		return nil, err
	}
	return open(drv, ordinal, opts, images, p.findCublas)
}

// open is Open with everything that a machine brings as a parameter.
func open(drv *driver, ordinal int, opts Options, images []image, findCublas func(cudaMajor int) (*cublasLt, []Attempt, error)) (*Backend, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	d, err := openDevice(drv, ordinal, images)
	if err != nil {
		return nil, err
	}
	b := &Backend{device: d, dtype: opts.DType}
	if b.dtype == Auto {
		b.dtype = BF16
	}
	lt, searched, err := findCublas(d.driverVersion / 1000)
	b.searched, b.noCublas = searched, err
	if err != nil {
		return b, nil // the package's own products serve
	}
	err = d.thread.call(func() error {
		made, err := newProducts(d, lt, b.dtype, opts)
		if err == nil {
			b.products = made
		}
		return err
	})
	if err != nil {
		b.noCublas = fmt.Errorf("%w: %w", errNoCublas, err)
	}
	return b, nil
}

// Name says what decides the bits of the results: the device, the driver
// that compiles the kernels, who multiplies, with options that are not the
// usual ones, and the type of the operands.
func (b *Backend) Name() string {
	d, gemm := b.device, "own products"
	if b.products != nil {
		gemm = b.products.name()
	}
	return fmt.Sprintf("cuda %s, sm_%d%d, driver CUDA %s, %s, %s", d.Name, d.Major, d.Minor, cudaVersion(d.driverVersion), gemm, b.dtype)
}

// DType is the type of the matrix operands, never Auto.
func (b *Backend) DType() DType { return b.dtype }

// Device describes the device.
func (b *Backend) Device() Device { return b.device.Device }

// Cublas says which cuBLAS multiplies; the error says why none does, and
// lists every path that was tried.
func (b *Backend) Cublas() (version string, err error) {
	if b.products == nil {
		return "", b.noCublas
	}
	return b.products.version, nil
}

// WithoutCublas says in one line why no cuBLAS multiplies, what that costs and
// how to see more; it is empty where one does.
func (b *Backend) WithoutCublas() string {
	if b.products != nil {
		return ""
	}
	return withoutCublas(b.noCublas, b.searched) + " " + searchHint
}

// Close lets go of the device.
func (b *Backend) Close() error {
	b.loading.Lock()
	defer b.loading.Unlock()
	err := b.device.thread.call(func() error {
		b.staging.free(b.device)
		if b.products != nil {
			b.products.close()
		}
		return nil
	})
	b.staging = nil
	b.device.close()
	return err
}
