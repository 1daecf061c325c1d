package cuda

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// workspaceBytes is the size of the workspace for a product by cuBLAS. It is constant, because the algorithm that
// cuBLAS chooses depends on this size.
const workspaceBytes = 32 << 20

// heuristicRows is the number of rows for which cuBLAS is asked to choose an algorithm. It does not depend on the
// batch: for another number cuBLAS may choose an algorithm that sums in another order, and the bits of a row must be
// the same in every batch.
const heuristicRows = 4096

// On a Hopper GPU in bf16 the backend prefers an algorithm with a tile of 128 by 128, if cuBLAS offers one for
// largeRows rows. On an H200 (bench/results) cuBLAS never offered such an algorithm first, but it was faster than the
// algorithm offered first. In bf16, algorithms that sum each element in one piece were compared in 136 cases: the first
// 64 MiB of their results always had the same bits.
const (
	largeRows   = 32768
	hopper      = 9  // major compute capability of Hopper GPUs, such as an H200
	tile128x128 = 20 // CUBLASLT_MATMUL_TILE_128x128
)

// heuristicChoices is the number of algorithms that cuBLAS is asked to offer. One would not be enough, because
// algorithms that split the inner dimension are not usable.
const heuristicChoices = 16

// products computes matrix products with cuBLASLt. Its methods must be called inside gpu.Device.Do.
type products struct {
	lt         *driver.CublasLt
	dtype      kernels.DType
	tile       int32 // use an algorithm with this tile if cuBLAS offers one; 0 for none
	free       bool  // Options.FreeAlgorithm
	handle     driver.Handle
	preference driver.Handle
	version    string     // version of the library
	name       string     // the library and the options that may change bits, for Backend.Name
	scalars    gpu.Pinned // the float32 values 1 and 0, for alpha and beta

	mu    sync.Mutex // guards the fields below
	plans map[Product]*plan
	value uint64                 // argument of calls that set an attribute; a field, so that they allocate nothing
	found driver.HeuristicResult // result of AlgoCheck; a field, so that the call allocates nothing
}

// plan is a matrix product with its descriptors for cuBLAS and its algorithm, if there is one.
//
// cuBLAS stores matrices by columns. A row-major matrix [rows, c] is for cuBLAS a column-major matrix [c, rows] whose
// leading dimension is the pitch. So cuBLAS computes
//
//	D[n, rows] = Aᵀ · B,  A = W as [k, n],  B = In as [k, rows]
type plan struct {
	ProductReport
	algo    driver.MatmulAlgo
	desc    driver.Handle
	a, b, d driver.Handle // layouts of A, B and D; C has the layout of D
	rows    int           // number of rows of In and Out in the layouts b and d
	fits    bool          // whether the algorithm supports the number in rows
}

// newProducts creates a handle of cuBLASLt, and the preference by which cuBLASLt chooses algorithms.
func newProducts(c *gpu.Context, r *gpu.Resources, lt *driver.CublasLt, major int, opts Options) *products {
	p := &products{lt: lt, dtype: opts.DType, free: opts.FreeAlgorithm, version: cublasVersion(lt.Version()),
		plans: map[Product]*plan{}}
	if opts.Tile >= 0 && !p.free && p.dtype == kernels.BF16 && major == hopper {
		p.tile = cmp.Or(opts.Tile, tile128x128)
	}
	p.name = "cuBLASLt " + p.version
	switch {
	case p.free:
		p.name += " with free algorithms"
	case opts.Tile < 0:
		p.name += " with first algorithms"
	case opts.Tile > 0:
		p.name += fmt.Sprintf(" with tile %d", opts.Tile)
	}
	if p.scalars = r.Pin(c, 8); c.Err != nil {
		return nil
	}
	binary.LittleEndian.PutUint64(p.scalars.Bytes, uint64(math.Float32bits(1)))
	if c.Fail(lt.Create(&p.handle).Err("cublasLtCreate")); c.Err != nil {
		return nil
	}
	workspace, reduction := uint64(workspaceBytes), uint64(driver.ReductionNone)
	err := cmp.Or(lt.PreferenceCreate(&p.preference).Err("cublasLtMatmulPreferenceCreate"),
		lt.PreferenceSet(p.preference, driver.PreferenceWorkspace, &workspace, 8).
			Err("cublasLtMatmulPreferenceSetAttribute of the workspace"))
	if !p.free { // by default cuBLAS also offers algorithms that split the inner dimension
		err = cmp.Or(err, lt.PreferenceSet(p.preference, driver.PreferenceReduction, &reduction, 4).
			Err("cublasLtMatmulPreferenceSetAttribute of the reduction"))
	}
	if c.Fail(err); err != nil {
		p.close()
	}
	return p
}

// cublasType returns the cudaDataType of t.
func cublasType(t kernels.DType) int32 {
	switch t {
	case kernels.FP32:
		return driver.TypeFloat32
	case kernels.FP16:
		return driver.TypeFloat16
	}
	return driver.TypeBfloat16
}

// cublasVersion formats CUBLAS_VERSION, which is 10000 · major + 100 · minor + patch.
func cublasVersion(v uint64) string {
	return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
}

// run enqueues a matrix product on the stream. If cuBLAS has no usable algorithm for this number of rows, run enqueues
// nothing and returns false. The matrices in and w have the operands' type. The matrices out and bias are float32 if
// plan.Wide is set, and otherwise have the operands' type. The matrix add is float32.
func (p *products) run(on gpu.Stream, plan *plan, rows int, out, in, w, bias, add, workspace driver.Pointer) (
	done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if plan.Algorithm != "" || p.free && plan.desc != 0 {
		if err := p.resize(plan, rows, bias); err != nil {
			return false, err
		}
	}
	if !plan.fits {
		plan.OwnCalls, plan.OwnRows = plan.OwnCalls+1, plan.OwnRows+int64(rows)
		return false, nil
	}
	one := uintptr(p.scalars.At)
	c, beta := out, one+4
	if plan.Add {
		c, beta = add, one
	}
	err = p.lt.Matmul(driver.MatmulCall{
		Handle: p.handle, Desc: plan.desc,
		Alpha: one, A: w, ALayout: plan.a, B: in, BLayout: plan.b,
		Beta: beta, C: c, CLayout: plan.d, D: out, DLayout: plan.d,
		Algo: &plan.algo, Workspace: workspace, WorkspaceBytes: workspaceBytes, Stream: driver.Handle(on),
	}).Err("cublasLtMatmul")
	if err != nil {
		return false, err
	}
	plan.Calls, plan.Rows = plan.Calls+1, plan.Rows+int64(rows)
	return true, nil
}

// plan returns the plan of a matrix product. The first call for a product makes the plan. rows is used only with
// Options.FreeAlgorithm: it is the number of rows for which cuBLAS chooses an algorithm.
func (p *products) plan(s Product, rows int, bias driver.Pointer) (*plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.plans[s]; known != nil {
		return known, nil
	}
	if !p.free {
		rows = heuristicRows
	}
	made := &plan{ProductReport: ProductReport{Product: s}}
	if s.Add && !s.Wide {
		// The residual is C, which has the same layout as D and therefore the same type.
		made.Refusal = "cuBLAS requires a residual of the result's type"
	} else if err := p.prepare(made, rows, bias); err != nil {
		p.discard(made)
		return nil, err
	}
	p.plans[s] = made
	return made, nil
}

// prepare creates the descriptors of a plan and chooses its algorithm.
func (p *products) prepare(made *plan, rows int, bias driver.Pointer) error {
	if err := p.describe(made, rows); err != nil {
		return err
	}
	if err := p.setBias(made, bias); err != nil {
		return err
	}
	return p.choose(made, rows)
}

// describe creates the descriptors of a plan for a number of rows.
func (p *products) describe(made *plan, rows int) error {
	lt, t := p.lt, cublasType(p.dtype)
	out := t
	if made.Wide {
		out = driver.TypeFloat32
	}
	layout := func(to *driver.Handle, t int32, rows, cols int) error {
		return lt.LayoutCreate(to, t, uint64(rows), uint64(cols), int64(pitch(rows))).Err("cublasLtMatrixLayoutCreate")
	}
	err := cmp.Or(lt.DescCreate(&made.desc, driver.Compute32F, driver.TypeFloat32).Err("cublasLtMatmulDescCreate"),
		layout(&made.a, t, made.K, made.N), layout(&made.b, t, made.K, rows), layout(&made.d, out, made.N, rows))
	if err != nil {
		return err
	}
	set := func(attribute int32, value uint64) error {
		return lt.DescSet(made.desc, attribute, &value, 4).Err("cublasLtMatmulDescSetAttribute %d", attribute)
	}
	err = cmp.Or(set(driver.DescTransA, driver.OperationT), set(driver.DescTransB, driver.OperationN))
	if !made.Bias {
		return cmp.Or(err, set(driver.DescEpilogue, driver.EpilogueDefault))
	}
	// cuBLAS requires a bias of the output's type.
	return cmp.Or(err, set(driver.DescEpilogue, driver.EpilogueBias), set(driver.DescBiasType, uint64(uint32(out))))
}

func (p *products) setBias(made *plan, bias driver.Pointer) error {
	if !made.Bias {
		return nil
	}
	p.value = uint64(bias)
	return p.lt.DescSet(made.desc, driver.DescBias, &p.value, 8).Err("cublasLtMatmulDescSetAttribute of the bias")
}

// choose sets the algorithm of a plan to the first usable one that cuBLAS offers for the given number of rows. If
// p.tile is set and cuBLAS offers an algorithm with this tile for largeRows rows, choose takes that algorithm instead.
// Before the call, the layouts must have the given number of rows. Afterwards they have the number of rows for which
// the chosen algorithm was offered.
func (p *products) choose(made *plan, rows int) error {
	made.rows, made.fits, made.AskedRows, made.Algorithm = rows, false, rows, ""
	offered, why := p.offered(made, rows)
	if len(offered) == 0 {
		made.Refusal = why
		return nil
	}
	chosen := &offered[0]
	if p.tile != 0 {
		if err := p.setRows(made, largeRows); err != nil {
			return err
		}
		large, _ := p.offered(made, largeRows)
		preferred := func(f driver.HeuristicResult) bool {
			tile, _ := p.attribute(&f.Algo, driver.ConfigTile, 4)
			return tile == p.tile
		}
		if i := slices.IndexFunc(large, preferred); i >= 0 {
			chosen, made.AskedRows = &large[i], largeRows
		} else if err := p.setRows(made, rows); err != nil {
			return err
		}
	}
	made.algo, made.fits = chosen.Algo, true
	made.Algorithm = p.algorithm(chosen)
	return nil
}

// setRows sets the number of rows of In and Out in the layouts of a plan.
func (p *products) setRows(made *plan, rows int) error {
	p.value = uint64(rows)
	err := cmp.Or(
		p.lt.LayoutSet(made.b, driver.LayoutCols, &p.value, 8).Err("cublasLtMatrixLayoutSetAttribute"),
		p.lt.LayoutSet(made.d, driver.LayoutCols, &p.value, 8).Err("cublasLtMatrixLayoutSetAttribute"))
	if made.rows = rows; err != nil {
		made.rows = 0
	}
	return err
}

// offered returns the algorithms that cuBLAS offers for a number of rows and that sum each element in one piece. With
// Options.FreeAlgorithm it also returns algorithms that split the inner dimension. If no algorithm is left, it returns
// the reason.
func (p *products) offered(made *plan, rows int) (usable []driver.HeuristicResult, why string) {
	found, count := make([]driver.HeuristicResult, heuristicChoices), int32(0)
	shapes := fmt.Sprintf("[%d %d]·[%d %d]ᵀ", rows, made.K, made.N, made.K)
	err := p.lt.AlgoHeuristic(p.handle, made.desc, made.a, made.b, made.d, made.d, p.preference,
		heuristicChoices, &found[0], &count).Err("cublasLtMatmulAlgoGetHeuristic for %s", shapes)
	if err != nil {
		return nil, err.Error()
	}
	found = found[:max(0, min(int(count), len(found)))]
	offered := len(found)
	usable = slices.DeleteFunc(found, func(f driver.HeuristicResult) bool {
		return f.State != 0 || f.Workspace > workspaceBytes || !p.free && !p.inOnePiece(&f.Algo)
	})
	if len(usable) == 0 {
		why = fmt.Sprintf("cuBLAS offers %s for %s, and none that sums in one piece", many(offered, "algorithm"), shapes)
	}
	return usable, why
}

// inOnePiece reports whether an algorithm sums each element in one piece: it neither splits the inner dimension nor
// adds up partial sums. inOnePiece returns false if an attribute of the algorithm cannot be read.
func (p *products) inOnePiece(algo *driver.MatmulAlgo) bool {
	splits, known := p.attribute(algo, driver.ConfigSplitK, 4)
	reduction, told := p.attribute(algo, driver.ConfigReduction, 4)
	return known && splits <= 1 && told && reduction == driver.ReductionNone
}

// attribute returns an attribute of an algorithm, and whether the library knows the attribute.
func (p *products) attribute(algo *driver.MatmulAlgo, number int32, bytes uint64) (n int32, known bool) {
	value, written := uint64(0), uint64(0)
	status := p.lt.AlgoConfig(algo, number, &value, bytes, &written)
	return int32(uint32(value)), status == 0
}

// resize prepares a plan for a number of rows and a bias. If the number of rows changes, resize checks that the
// algorithm supports the new number. With Options.FreeAlgorithm it chooses another algorithm for that number instead.
// All products for a batch have the same number of rows, so only a plan's first call for a batch can ask cuBLAS.
func (p *products) resize(made *plan, rows int, bias driver.Pointer) error {
	if err := p.setBias(made, bias); err != nil || made.rows == rows {
		return err
	}
	if err := p.setRows(made, rows); err != nil {
		return err
	}
	if p.free {
		return p.choose(made, rows)
	}
	err := p.lt.AlgoCheck(p.handle, made.desc, made.a, made.b, made.d, made.d, &made.algo, &p.found).
		Err("cublasLtMatmulAlgoCheck")
	if err == nil && p.found.Workspace > workspaceBytes {
		err = fmt.Errorf("it would need a workspace of %d bytes", p.found.Workspace)
	}
	if made.fits = err == nil; err != nil {
		made.Refusal = fmt.Sprintf("it refuses %s: %v", many(rows, "row"), err)
	}
	return nil
}

// discard frees the descriptors that a plan has in cuBLAS.
func (p *products) discard(made *plan) {
	if made.desc != 0 {
		p.lt.DescDestroy(made.desc)
	}
	for _, layout := range []driver.Handle{made.a, made.b, made.d} {
		if layout != 0 {
			p.lt.LayoutDestroy(layout)
		}
	}
}

// close frees all plans and the handle.
func (p *products) close() {
	for _, made := range p.plans {
		p.discard(made)
	}
	if p.preference != 0 {
		p.lt.PreferenceDestroy(p.preference)
	}
	p.lt.Destroy(p.handle)
}
