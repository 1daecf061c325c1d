package cuda

import (
	"fmt"

	"seqembed/kernels"
)

// status is a cublasStatus_t.
type status int32

// CublasError is a call of cuBLASLt that failed.
type CublasError struct {
	Op     string // the function, and what it was asked for
	Status int    // the cublasStatus_t
}

// Error gives the operation and the status's name.
func (e *CublasError) Error() string {
	if name, ok := statusNames[e.Status]; ok {
		return fmt.Sprintf("%s: %s (%d)", e.Op, name, e.Status)
	}
	return fmt.Sprintf("%s: cuBLAS status %d", e.Op, e.Status)
}

// Unwrap makes a device that is out of memory kernels.ErrOutOfMemory.
func (e *CublasError) Unwrap() error {
	if e.Status == 3 {
		return kernels.ErrOutOfMemory
	}
	return nil
}

var statusNames = map[int]string{
	1: "CUBLAS_STATUS_NOT_INITIALIZED", 3: "CUBLAS_STATUS_ALLOC_FAILED", 7: "CUBLAS_STATUS_INVALID_VALUE",
	8: "CUBLAS_STATUS_ARCH_MISMATCH", 11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
	14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED", 16: "CUBLAS_STATUS_LICENSE_ERROR",
}

func (s status) err(format string, args ...any) error {
	if s == 0 {
		return nil
	}
	return &CublasError{Op: fmt.Sprintf(format, args...), Status: int(s)}
}

// matmulAlgo is cublasLtMatmulAlgo_t, 64 opaque bytes.
type matmulAlgo [8]uint64

// heuristicResult is cublasLtMatmulHeuristicResult_t, 96 bytes.
type heuristicResult struct {
	algo      matmulAlgo
	workspace uint64 // bytes
	state     status
	waves     float32
	_         [4]int32
}

// matmulCall holds the sixteen arguments of cublasLtMatmul in their order.
type matmulCall struct {
	handle, desc   handle
	alpha          uintptr // of a float32 in pinned memory
	a              devicePtr
	aLayout        handle
	b              devicePtr
	bLayout        handle
	beta           uintptr
	c              devicePtr
	cLayout        handle
	d              devicePtr
	dLayout        handle
	algo           *matmulAlgo
	workspace      devicePtr
	workspaceBytes uint64
	stream         handle
}

// cublasLt is the part of cuBLASLt that the package uses, one field a
// function, so that tests can put their own in. An attribute's value is always
// given as the first bytes of a 64-bit word, which is where a little-endian
// machine keeps a smaller one.
type cublasLt struct {
	version func() uint64

	create  func(lt *handle) status
	destroy func(lt handle) status

	descCreate  func(desc *handle, computeType, scaleType int32) status
	descDestroy func(desc handle) status
	descSet     func(desc handle, attribute int32, value *uint64, bytes uint64) status

	layoutCreate  func(layout *handle, dataType int32, rows, cols uint64, ld int64) status
	layoutDestroy func(layout handle) status
	layoutSet     func(layout handle, attribute int32, value *uint64, bytes uint64) status

	preferenceCreate  func(preference *handle) status
	preferenceDestroy func(preference handle) status
	preferenceSet     func(preference handle, attribute int32, value *uint64, bytes uint64) status

	heuristic  func(lt, desc, a, b, c, d, preference handle, wanted int32, found *heuristicResult, count *int32) status
	algoConfig func(algo *matmulAlgo, attribute int32, value *uint64, bytes uint64, written *uint64) status
	algoCheck  func(lt, desc, a, b, c, d handle, algo *matmulAlgo, found *heuristicResult) status
	matmul     func(m matmulCall) status
}

// symbols lists the functions that are called seldom by the names under which
// the library exports them; bindCublas adds those of every product.
func (c *cublasLt) symbols() map[string]any {
	return map[string]any{
		"cublasLtGetVersion":                   &c.version,
		"cublasLtCreate":                       &c.create,
		"cublasLtDestroy":                      &c.destroy,
		"cublasLtMatmulDescCreate":             &c.descCreate,
		"cublasLtMatmulDescDestroy":            &c.descDestroy,
		"cublasLtMatrixLayoutCreate":           &c.layoutCreate,
		"cublasLtMatrixLayoutDestroy":          &c.layoutDestroy,
		"cublasLtMatmulPreferenceCreate":       &c.preferenceCreate,
		"cublasLtMatmulPreferenceDestroy":      &c.preferenceDestroy,
		"cublasLtMatmulPreferenceSetAttribute": &c.preferenceSet,
		"cublasLtMatmulAlgoGetHeuristic":       &c.heuristic,
		"cublasLtMatmulAlgoConfigGetAttribute": &c.algoConfig,
	}
}

// Values of cublasLt.h, cublas_api.h and library_types.h.
const (
	typeFloat32  = 0  // CUDA_R_32F
	typeFloat16  = 2  // CUDA_R_16F
	typeBfloat16 = 14 // CUDA_R_16BF

	compute32F = 68 // CUBLAS_COMPUTE_32F: float32, no TF32

	operationN = 0 // CUBLAS_OP_N
	operationT = 1 // CUBLAS_OP_T

	layoutCols = 3 // CUBLASLT_MATRIX_LAYOUT_COLS, uint64

	descTransA   = 3  // CUBLASLT_MATMUL_DESC_TRANSA, int32
	descTransB   = 4  // CUBLASLT_MATMUL_DESC_TRANSB, int32
	descEpilogue = 7  // CUBLASLT_MATMUL_DESC_EPILOGUE, uint32
	descBias     = 8  // CUBLASLT_MATMUL_DESC_BIAS_POINTER
	descBiasType = 26 // CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32

	epilogueDefault = 1 // CUBLASLT_EPILOGUE_DEFAULT
	epilogueBias    = 4 // CUBLASLT_EPILOGUE_BIAS

	preferenceWorkspace = 1 // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64
	preferenceReduction = 3 // CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32

	configID           = 0 // CUBLASLT_ALGO_CONFIG_ID, int32
	configTile         = 1 // CUBLASLT_ALGO_CONFIG_TILE_ID, uint32
	configSplitK       = 2 // CUBLASLT_ALGO_CONFIG_SPLITK_NUM, int32
	configReduction    = 3 // CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, uint32
	configStages       = 6 // CUBLASLT_ALGO_CONFIG_STAGES_ID, uint32
	configInnerShape   = 7 // CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, uint16
	configClusterShape = 8 // CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, uint16

	reductionNone = 0 // CUBLASLT_REDUCTION_SCHEME_NONE
)

// cublasType is the cudaDataType of a DType.
func (t DType) cublasType() int32 {
	switch t {
	case FP32:
		return typeFloat32
	case FP16:
		return typeFloat16
	}
	return typeBfloat16
}
