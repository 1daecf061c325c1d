package driver

// MatmulAlgo is cublasLtMatmulAlgo_t, 64 opaque bytes.
type MatmulAlgo [8]uint64

// HeuristicResult is cublasLtMatmulHeuristicResult_t, 96 bytes.
type HeuristicResult struct {
	Algo      MatmulAlgo
	Workspace uint64 // in bytes
	State     Status
	Waves     float32
	_         [4]int32
}

// MatmulCall holds the sixteen arguments of cublasLtMatmul in their order.
type MatmulCall struct {
	Handle, Desc   Handle
	Alpha          uintptr // address of a float32 outside Go's memory
	A              Pointer
	ALayout        Handle
	B              Pointer
	BLayout        Handle
	Beta           uintptr
	C              Pointer
	CLayout        Handle
	D              Pointer
	DLayout        Handle
	Algo           *MatmulAlgo
	Workspace      Pointer
	WorkspaceBytes uint64
	Stream         Handle
}

// CublasLt contains the functions of libcublasLt that the program uses. The name of a field is a short form of its
// function's name; the tag of a field is the name that the library exports. The value of an attribute is passed in a
// 64-bit word. A value of a smaller type is in the first bytes of the word, because the machines are little-endian.
type CublasLt struct {
	Version func() uint64           `c:"cublasLtGetVersion"`
	Create  func(lt *Handle) Status `c:"cublasLtCreate"`
	Destroy func(lt Handle) Status  `c:"cublasLtDestroy"`

	DescCreate  func(desc *Handle, computeType, scaleType int32) Status `c:"cublasLtMatmulDescCreate"`
	DescDestroy func(desc Handle) Status                                `c:"cublasLtMatmulDescDestroy"`

	LayoutCreate func(layout *Handle, dataType int32, rows, cols uint64,
		ld int64) Status `c:"cublasLtMatrixLayoutCreate"`
	LayoutDestroy func(layout Handle) Status `c:"cublasLtMatrixLayoutDestroy"`

	PreferenceCreate  func(preference *Handle) Status `c:"cublasLtMatmulPreferenceCreate"`
	PreferenceDestroy func(preference Handle) Status  `c:"cublasLtMatmulPreferenceDestroy"`
	PreferenceSet     func(preference Handle, attribute int32, value *uint64,
		bytes uint64) Status `c:"cublasLtMatmulPreferenceSetAttribute"`

	AlgoHeuristic func(lt, desc, a, b, c, d, preference Handle, wanted int32,
		found *HeuristicResult, count *int32) Status `c:"cublasLtMatmulAlgoGetHeuristic"`
	AlgoConfig func(algo *MatmulAlgo, attribute int32, value *uint64, bytes uint64,
		written *uint64) Status `c:"cublasLtMatmulAlgoConfigGetAttribute"`

	// The functions below are called while batches run. They have no tag, because BindCublasLt binds them without
	// reflection, which would be slow.
	DescSet   func(desc Handle, attribute int32, value *uint64, bytes uint64) Status
	LayoutSet func(layout Handle, attribute int32, value *uint64, bytes uint64) Status
	AlgoCheck func(lt, desc, a, b, c, d Handle, algo *MatmulAlgo, found *HeuristicResult) Status
	Matmul    func(m MatmulCall) Status
}

// Values of cublasLt.h, cublas_api.h and library_types.h: each with its name there and, for an attribute, with the type
// of the attribute's value.
const (
	TypeFloat32  = 0  // CUDA_R_32F
	TypeFloat16  = 2  // CUDA_R_16F
	TypeBfloat16 = 14 // CUDA_R_16BF

	Compute32F = 68 // CUBLAS_COMPUTE_32F: float32, no TF32

	OperationN = 0 // CUBLAS_OP_N
	OperationT = 1 // CUBLAS_OP_T

	LayoutCols = 3 // CUBLASLT_MATRIX_LAYOUT_COLS, uint64

	DescTransA   = 3  // CUBLASLT_MATMUL_DESC_TRANSA, int32
	DescTransB   = 4  // CUBLASLT_MATMUL_DESC_TRANSB, int32
	DescEpilogue = 7  // CUBLASLT_MATMUL_DESC_EPILOGUE, uint32
	DescBias     = 8  // CUBLASLT_MATMUL_DESC_BIAS_POINTER, an address
	DescBiasType = 26 // CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32

	EpilogueDefault = 1 // CUBLASLT_EPILOGUE_DEFAULT
	EpilogueBias    = 4 // CUBLASLT_EPILOGUE_BIAS

	PreferenceWorkspace = 1 // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64
	PreferenceReduction = 3 // CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32

	ConfigID           = 0 // CUBLASLT_ALGO_CONFIG_ID, int32
	ConfigTile         = 1 // CUBLASLT_ALGO_CONFIG_TILE_ID, uint32
	ConfigSplitK       = 2 // CUBLASLT_ALGO_CONFIG_SPLITK_NUM, int32
	ConfigReduction    = 3 // CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, uint32
	ConfigStages       = 6 // CUBLASLT_ALGO_CONFIG_STAGES_ID, uint32
	ConfigInnerShape   = 7 // CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, uint16
	ConfigClusterShape = 8 // CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, uint16

	ReductionNone = 0 // CUBLASLT_REDUCTION_SCHEME_NONE
)
