package cuda

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// workspaceBytes is the scratch of a product of cuBLAS: a fixed number, because the choice of an algorithm depends on
// it.
const workspaceBytes = 32 << 20

// heuristicRows is the number of rows for which an algorithm is asked for. It is a constant, and not the batch's,
// because another algorithm may sum in another order, and a row's bits must not depend on its batch.
const heuristicRows = 4096

// cuBLAS does not put a tile of 128 by 128 first on an H200, where it is the faster one for the shapes for which cuBLAS
// offers it for many rows (bench/results). In all 136 cases that were compared, of the products of three models in
// bf16, the algorithms that sum in one piece gave the same bits in the first 64 MiB of a result.
const (
	largeRows   = 32768
	hopper      = 9  // compute capability, major
	tile128x128 = 20 // CUBLASLT_MATMUL_TILE_128x128
)

// heuristicChoices is how many algorithms are asked for, to find one that does not split the inner dimension.
const heuristicChoices = 16

// shape is everything about a product but its rows that an algorithm depends on:
//
//	Out[rows, n] = In[rows, k] · W[n, k]ᵀ + bias + Add
type shape struct {
	n, k int
	wide bool // Out, bias and Add are float32; otherwise of the operands' type
	bias bool
	add  bool
}

func (s shape) report() ProductReport {
	return ProductReport{N: s.n, K: s.k, Wide: s.wide, Bias: s.bias, Add: s.add}
}

// products computes matrix products with cuBLASLt. Its calls need the device's context.
type products struct {
	lt      *driver.CublasLt
	dtype   DType
	tiled   bool // the preferred tile is taken where it is offered
	first   bool // its first answer is taken, whatever the tile
	free    bool // it is asked for the batch's rows, and may sum in pieces
	handle  driver.Handle
	version string
	scalars gpu.Pinned // float32: 1, 0

	mu    sync.Mutex // guards the fields below
	plans map[shape]*plan
	value uint64                 // of an attribute, for a call of every batch: on the heap once
	found driver.HeuristicResult // likewise
}

// plan is a product whose algorithm is settled.
//
// cuBLAS sees matrices by columns: a row-major [rows, c] matrix of a pitch is its column-major [c, rows] of that
// leading dimension. So it computes
//
//	D[n, rows] = Aᵀ · B,  A = W as [k, n],  B = In as [k, rows]
type plan struct {
	shape
	algo       driver.MatmulAlgo
	desc       driver.Handle
	a, b, d    driver.Handle // layouts; C has D's
	rows       int           // for which the layouts and fits stand
	fits       bool          // the algorithm takes that many rows
	unsuitable error         // no algorithm for this shape at all
	report     ProductReport
}

// newProducts makes the handle of cuBLASLt.
func newProducts(c *gpu.Context, lt *driver.CublasLt, t DType, major int, opts Options) (*products, error) {
	p := &products{lt: lt, dtype: t, plans: map[shape]*plan{}, first: opts.FirstAlgorithm, free: opts.FreeAlgorithm}
	p.tiled = !p.first && !p.free && t == BF16 && major == hopper
	p.version = cublasVersion(lt.Version())
	err := lt.Create(&p.handle).Err("cublasLtCreate")
	if err != nil {
		return nil, err
	}
	if p.scalars, err = c.Pin(8); err != nil {
		lt.Destroy(p.handle)
		return nil, err
	}
	binary.LittleEndian.PutUint64(p.scalars.Bytes, uint64(math.Float32bits(1)))
	return p, nil
}

// name is the library with its version and, where it is not the usual one, the choice of algorithms: they may decide
// the bits as well.
func (p *products) name() string {
	switch {
	case p.free:
		return "cuBLASLt " + p.version + " with free algorithms"
	case p.first:
		return "cuBLASLt " + p.version + " with first algorithms"
	}
	return "cuBLASLt " + p.version
}

// cublasType is the cudaDataType of a DType.
func (t DType) cublasType() int32 {
	switch t {
	case FP32:
		return driver.TypeFloat32
	case FP16:
		return driver.TypeFloat16
	}
	return driver.TypeBfloat16
}

// cublasVersion writes CUBLAS_VERSION, 10000 · major + 100 · minor + patch, in the usual form.
func cublasVersion(v uint64) string {
	return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
}

// run enqueues a product, or says that cuBLAS has no algorithm for it that keeps the promises of the package; nothing
// has been enqueued then. in and w are of the operands' type, out, bias and add as the shape says.
func (p *products) run(on gpu.Stream, plan *plan, rows int, out, in, w, bias, add, workspace driver.Pointer) (
	done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if plan.unsuitable == nil || p.free && plan.unsuitable != errNarrowSum {
		if err := p.resize(plan, rows, bias); err != nil {
			return false, err
		}
	}
	if plan.unsuitable != nil || !plan.fits {
		plan.report.own(rows)
		return false, nil
	}
	one := uintptr(p.scalars.At)
	c, beta := out, one+4
	if plan.add {
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
	plan.report.taken(rows)
	return true, nil
}

// errNarrowSum is why cuBLAS is not asked for a product with a float32 addend and a result in the operands' type: its C
// and D have one type.
var errNarrowSum = errors.New("cuBLAS adds and writes in one type, and these are two")

// plan settles the algorithm of a shape when it is first met. rows matter only where algorithms are free.
func (p *products) plan(s shape, rows int, bias driver.Pointer) (*plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.plans[s]; known != nil {
		return known, nil
	}
	if s.add && !s.wide {
		p.plans[s] = &plan{shape: s, report: s.report(), unsuitable: errNarrowSum}
		return p.plans[s], nil
	}
	if !p.free {
		rows = heuristicRows
	}
	made, err := p.describe(s, rows)
	if err == nil {
		err = p.setBias(made, bias)
	}
	if err == nil {
		err = p.choose(made, rows)
	}
	if err != nil {
		p.discard(made)
		return nil, err
	}
	p.plans[s] = made
	return made, nil
}

// describe makes the descriptors of a plan for a number of rows.
func (p *products) describe(s shape, rows int) (*plan, error) {
	lt, t := p.lt, p.dtype.cublasType()
	made := &plan{shape: s, report: s.report()}
	out := t
	if s.wide {
		out = driver.TypeFloat32
	}
	err := cmp.Or(
		lt.DescCreate(&made.desc, driver.Compute32F, driver.TypeFloat32).Err("cublasLtMatmulDescCreate"),
		lt.LayoutCreate(&made.a, t, uint64(s.k), uint64(s.n), int64(pitch(s.k))).Err("cublasLtMatrixLayoutCreate"),
		lt.LayoutCreate(&made.b, t, uint64(s.k), uint64(rows), int64(pitch(s.k))).Err("cublasLtMatrixLayoutCreate"),
		lt.LayoutCreate(&made.d, out, uint64(s.n), uint64(rows), int64(pitch(s.n))).Err("cublasLtMatrixLayoutCreate"))
	if err != nil {
		return made, err
	}
	set := func(attribute int32, value uint64, bytes uint64) error {
		return lt.DescSet(made.desc, attribute, &value, bytes).Err("cublasLtMatmulDescSetAttribute %d", attribute)
	}
	epilogue := uint64(driver.EpilogueDefault)
	if s.bias {
		epilogue = driver.EpilogueBias
	}
	err = cmp.Or(set(driver.DescTransA, driver.OperationT, 4), set(driver.DescTransB, driver.OperationN, 4),
		set(driver.DescEpilogue, epilogue, 4))
	if s.bias {
		// cuBLAS allows a bias of the output's type and of no other here.
		err = cmp.Or(err, set(driver.DescBiasType, uint64(uint32(out)), 4))
	}
	return made, err
}

func (p *products) setBias(made *plan, bias driver.Pointer) error {
	if !made.bias {
		return nil
	}
	p.value = uint64(bias)
	return p.lt.DescSet(made.desc, driver.DescBias, &p.value, 8).Err("cublasLtMatmulDescSetAttribute of the bias")
}

// choose takes the preferred algorithm, or the first that is offered for a number of rows, which the layouts have.
func (p *products) choose(made *plan, rows int) error {
	made.rows, made.fits, made.unsuitable = rows, false, nil
	made.report.AskedRows, made.report.Algorithm = rows, nil
	offered, err := p.offered(made, rows)
	if err != nil || made.unsuitable != nil {
		return err
	}
	chosen := &offered[0]
	better, err := p.preferred(made)
	if better != nil {
		chosen, made.report.AskedRows = better, largeRows
	} else if err == nil && made.rows != rows {
		err = p.setRows(made, rows)
	}
	// Now the layouts have the rows for which the algorithm has been offered.
	made.algo, made.fits = chosen.Algo, true
	made.report.Algorithm = p.read(chosen)
	return err
}

// preferred is the algorithm with the tile that is preferred on the device in bf16, the type that was timed, or nil.
// The layouts have the rows that it was looked for.
func (p *products) preferred(made *plan) (*driver.HeuristicResult, error) {
	if !p.tiled {
		return nil, nil
	}
	if err := p.setRows(made, largeRows); err != nil {
		return nil, err
	}
	offered, err := p.offered(made, largeRows)
	made.unsuitable = nil // there is one for fewer rows
	i := slices.IndexFunc(offered, func(f driver.HeuristicResult) bool { return p.read(&f).Tile == tile128x128 })
	if i < 0 {
		return nil, err
	}
	return &offered[i], err
}

// setRows sets the layouts to a number of rows.
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

// offered are the algorithms that cuBLAS offers for a number of rows, those that sum each element in one piece; all,
// where algorithms are free. If there is none, the plan is unsuitable.
func (p *products) offered(made *plan, rows int) ([]driver.HeuristicResult, error) {
	lt := p.lt
	var preference driver.Handle
	if err := lt.PreferenceCreate(&preference).Err("cublasLtMatmulPreferenceCreate"); err != nil {
		return nil, err
	}
	defer lt.PreferenceDestroy(preference)
	workspace, reduction := uint64(workspaceBytes), uint64(driver.ReductionNone)
	err := lt.PreferenceSet(preference, driver.PreferenceWorkspace, &workspace, 8).
		Err("cublasLtMatmulPreferenceSetAttribute of the workspace")
	if !p.free { // without it cuBLAS takes every scheme into account
		err = cmp.Or(err, lt.PreferenceSet(preference, driver.PreferenceReduction, &reduction, 4).
			Err("cublasLtMatmulPreferenceSetAttribute of the reduction"))
	}
	if err != nil {
		return nil, err
	}
	found := make([]driver.HeuristicResult, heuristicChoices)
	count := int32(0)
	s := lt.AlgoHeuristic(p.handle, made.desc, made.a, made.b, made.d, made.d, preference,
		heuristicChoices, &found[0], &count)
	if s != 0 {
		made.unsuitable = s.Err("cublasLtMatmulAlgoGetHeuristic for [%d %d]·[%d %d]ᵀ", rows, made.k, made.n, made.k)
		return nil, nil
	}
	found = found[:max(0, min(int(count), len(found)))]
	usable := slices.DeleteFunc(found, func(f driver.HeuristicResult) bool {
		return f.State != 0 || f.Workspace > workspaceBytes || !p.free && !p.inOnePiece(&f.Algo)
	})
	if len(usable) == 0 {
		made.unsuitable = fmt.Errorf("cuBLAS offers %s for [%d %d]·[%d %d]ᵀ, and none that sums in one piece",
			many(len(found), "algorithm"), rows, made.k, made.n, made.k)
	}
	return usable, nil
}

// inOnePiece says that an algorithm neither splits the inner dimension nor has parts to reduce. An attribute that
// cannot be read does not pass for harmless.
func (p *products) inOnePiece(algo *driver.MatmulAlgo) bool {
	splits, reduction, written := uint64(0), uint64(0), uint64(0)
	return p.lt.AlgoConfig(algo, driver.ConfigSplitK, &splits, 4, &written) == 0 && int32(uint32(splits)) <= 1 &&
		p.lt.AlgoConfig(algo, driver.ConfigReduction, &reduction, 4, &written) == 0 &&
		uint32(reduction) == driver.ReductionNone
}

// resize sets the layouts to a number of rows and asks whether the algorithm takes them; where algorithms are free it
// asks for another. The layers of a batch all have the same, so it is asked about once a batch.
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
		made.report.refuse(rows, err)
	}
	return nil
}

// discard frees the objects of a plan.
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

// close frees everything.
func (p *products) close(c *gpu.Context) {
	for _, made := range p.plans {
		p.discard(made)
	}
	c.Unpin(p.scalars)
	p.lt.Destroy(p.handle)
}
