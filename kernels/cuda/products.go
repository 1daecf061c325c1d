package cuda

import (
	"fmt"
)

// workspaceBytes is what a product of cuBLAS may use as scratch: a fixed
// number, because the choice of an algorithm depends on it.
const workspaceBytes = 32 << 20

// heuristicRows is the number of rows for which an algorithm is asked for. It
// is a constant, and not the batch's, because another algorithm sums in
// another order, and a row's bits must not depend on its batch.
const heuristicRows = 4096

// heuristicChoices is how many algorithms are asked for, to find one that does
// not split the inner dimension.
const heuristicChoices = 16

// shape is everything about a product but its rows that an algorithm depends
// on:
//
//	Out[rows, n] = In[rows, k] · W[n, k]ᵀ + bias + Add
type shape struct {
	n, k int
	wide bool // Out, bias and Add are float32; otherwise of the operands' type
	bias bool
	add  bool
}

// products computes matrix products with cuBLASLt. It belongs to a device's
// thread.
type products struct {
	lt      *cublasLt
	device  *device
	dtype   DType
	handle  handle
	version string
	plans   map[shape]*plan
}

// plan is a product whose algorithm is settled.
//
// cuBLAS sees matrices by columns: a row-major [rows, c] matrix of a pitch is
// its column-major [c, rows] of that leading dimension. So it computes
//
//	D[n, rows] = Aᵀ · B,  A = W as [k, n],  B = In as [k, rows]
type plan struct {
	shape
	algo       matmulAlgo
	desc       handle
	a, b, d    handle // layouts; C has D's
	rows       int    // for which the layouts and fits stand
	fits       bool   // the algorithm takes that many rows
	unsuitable error  // no algorithm for this shape at all
}

// newProducts makes the handle of cuBLASLt on the device's thread.
func newProducts(d *device, lt *cublasLt, t DType) (*products, error) {
	p := &products{lt: lt, device: d, dtype: t, plans: map[shape]*plan{}}
	p.version = cublasVersion(lt.version())
	return p, lt.create(&p.handle).err("cublasLtCreate")
}

// cublasVersion writes CUBLAS_VERSION, 10000 · major + 100 · minor + patch, in
// the usual form.
func cublasVersion(v uint64) string {
	return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
}

// run enqueues a product, or says that cuBLAS has no algorithm for it that
// keeps the promises of the package; nothing has been enqueued then. in and w
// are of the operands' type, out, bias and add as the shape says.
func (p *products) run(stream handle, s shape, rows int, out, in, w, bias, add, workspace devicePtr) (done bool, err error) {
	plan, err := p.plan(s, bias)
	if err != nil || plan.unsuitable != nil {
		return false, err
	}
	if err := p.resize(plan, rows, bias); err != nil || !plan.fits {
		return false, err
	}
	scalars := p.device.params.scalar
	scalars[0], scalars[1] = 1, 0
	c := out
	if s.add {
		scalars[1], c = 1, add
	}
	alpha := p.device.params.scalarAddress()
	err = p.lt.matmul(matmulCall{
		handle: p.handle, desc: plan.desc,
		alpha: alpha, a: w, aLayout: plan.a, b: in, bLayout: plan.b,
		beta: alpha + 4, c: c, cLayout: plan.d, d: out, dLayout: plan.d,
		algo: &plan.algo, workspace: workspace, workspaceBytes: workspaceBytes, stream: stream,
	}).err("cublasLtMatmul")
	return err == nil, err
}

// plan settles the algorithm of a shape when it is first met.
func (p *products) plan(s shape, bias devicePtr) (*plan, error) {
	if known := p.plans[s]; known != nil {
		return known, nil
	}
	made, err := p.describe(s)
	if err == nil {
		err = p.setBias(made, bias)
	}
	if err == nil {
		err = p.choose(made)
	}
	if err != nil {
		p.discard(made)
		return nil, err
	}
	p.plans[s] = made
	return made, nil
}

// describe makes the descriptors of a plan for heuristicRows.
func (p *products) describe(s shape) (*plan, error) {
	lt, t := p.lt, p.dtype.cublasType()
	made := &plan{shape: s}
	out := t
	if s.wide {
		out = typeFloat32
	}
	err := first(
		lt.descCreate(&made.desc, compute32F, typeFloat32).err("cublasLtMatmulDescCreate"),
		lt.layoutCreate(&made.a, t, uint64(s.k), uint64(s.n), int64(pitch(s.k))).err("cublasLtMatrixLayoutCreate"),
		lt.layoutCreate(&made.b, t, uint64(s.k), heuristicRows, int64(pitch(s.k))).err("cublasLtMatrixLayoutCreate"),
		lt.layoutCreate(&made.d, out, uint64(s.n), heuristicRows, int64(pitch(s.n))).err("cublasLtMatrixLayoutCreate"))
	if err != nil {
		return made, err
	}
	set := func(attribute int32, value uint64, bytes uint64) error {
		return lt.descSet(made.desc, attribute, &value, bytes).err("cublasLtMatmulDescSetAttribute %d", attribute)
	}
	epilogue := uint64(epilogueDefault)
	if s.bias {
		epilogue = epilogueBias
	}
	err = first(set(descTransA, operationT, 4), set(descTransB, operationN, 4), set(descEpilogue, epilogue, 4))
	if s.bias {
		// cuBLAS allows a bias of the output's type and of no other here.
		err = first(err, set(descBiasType, uint64(uint32(out)), 4))
	}
	return made, err
}

func (p *products) setBias(made *plan, bias devicePtr) error {
	if !made.bias {
		return nil
	}
	value := uint64(bias)
	return p.lt.descSet(made.desc, descBias, &value, 8).err("cublasLtMatmulDescSetAttribute of the bias")
}

// choose takes the first algorithm of the heuristic that sums each element in
// one piece.
func (p *products) choose(made *plan) error {
	lt := p.lt
	var preference handle
	if err := lt.preferenceCreate(&preference).err("cublasLtMatmulPreferenceCreate"); err != nil {
		return err
	}
	defer lt.preferenceDestroy(preference)
	workspace, reduction := uint64(workspaceBytes), uint64(reductionNone)
	err := first(
		lt.preferenceSet(preference, preferenceWorkspace, &workspace, 8).err("cublasLtMatmulPreferenceSetAttribute of the workspace"),
		lt.preferenceSet(preference, preferenceReduction, &reduction, 4).err("cublasLtMatmulPreferenceSetAttribute of the reduction"))
	if err != nil {
		return err
	}
	found := make([]heuristicResult, heuristicChoices)
	count := int32(0)
	if s := lt.heuristic(p.handle, made.desc, made.a, made.b, made.d, made.d, preference, heuristicChoices, &found[0], &count); s != 0 {
		made.unsuitable = s.err("cublasLtMatmulAlgoGetHeuristic for [%d %d]·[%d %d]ᵀ", heuristicRows, made.k, made.n, made.k)
		return nil
	}
	for i := range found[:max(0, min(int(count), len(found)))] {
		f := &found[i]
		if f.state == 0 && f.workspace <= workspaceBytes && p.inOnePiece(&f.algo) {
			made.algo, made.rows, made.fits = f.algo, heuristicRows, true
			return nil
		}
	}
	made.unsuitable = fmt.Errorf("cuBLAS has no algorithm for [%d %d]·[%d %d]ᵀ that sums in one piece", heuristicRows, made.k, made.n, made.k)
	return nil
}

// inOnePiece says that an algorithm neither splits the inner dimension nor
// has parts to reduce. What cannot be read does not pass for harmless.
func (p *products) inOnePiece(algo *matmulAlgo) bool {
	splits, reduction, written := uint64(0), uint64(0), uint64(0)
	return p.lt.algoConfig(algo, configSplitK, &splits, 4, &written) == 0 && int32(uint32(splits)) <= 1 &&
		p.lt.algoConfig(algo, configReduction, &reduction, 4, &written) == 0 && uint32(reduction) == reductionNone
}

// resize sets the layouts to a number of rows and asks whether the algorithm
// takes them. The layers of a batch all have the same, so it is asked about
// once a batch.
func (p *products) resize(made *plan, rows int, bias devicePtr) error {
	if err := p.setBias(made, bias); err != nil || made.rows == rows {
		return err
	}
	value := uint64(rows)
	err := first(
		p.lt.layoutSet(made.b, layoutCols, &value, 8).err("cublasLtMatrixLayoutSetAttribute"),
		p.lt.layoutSet(made.d, layoutCols, &value, 8).err("cublasLtMatrixLayoutSetAttribute"))
	if err != nil {
		made.rows = 0
		return err
	}
	var found heuristicResult
	s := p.lt.algoCheck(p.handle, made.desc, made.a, made.b, made.d, made.d, &made.algo, &found)
	made.rows, made.fits = rows, s == 0 && found.workspace <= workspaceBytes
	return nil
}

// discard frees what a plan holds.
func (p *products) discard(made *plan) {
	if made.desc != 0 {
		p.lt.descDestroy(made.desc)
	}
	for _, layout := range []handle{made.a, made.b, made.d} {
		if layout != 0 {
			p.lt.layoutDestroy(layout)
		}
	}
}

// close frees everything, on the device's thread.
func (p *products) close() {
	for _, made := range p.plans {
		p.discard(made)
	}
	p.lt.destroy(p.handle)
}
