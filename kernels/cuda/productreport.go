package cuda

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"seqembed/kernels/cuda/driver"
)

// ProductReport describes the matrix products of one shape
//
//	Out[rows, N] = In[rows, K] · W[N, K]ᵀ + bias + Add
//
// on a device with cuBLAS, and how many there have been.
type ProductReport struct {
	N    int  `json:"n"`
	K    int  `json:"k"`
	Wide bool `json:"wide"` // Out, bias and Add are float32; otherwise of the operands' type
	Bias bool `json:"bias"`
	Add  bool `json:"add"`

	// AskedRows is the number of rows for which cuBLAS was asked for an algorithm, the last one where algorithms are
	// free, or 0.
	AskedRows int        `json:"asked_rows"`
	Algorithm *Algorithm `json:"algorithm,omitempty"` // nil where it has none that the package can use
	Refusal   string     `json:"refusal,omitempty"`   // why it has none
	Calls     int64      `json:"calls"`               // products that cuBLAS computed
	Rows      int64      `json:"rows"`                // of all these

	// Products of the package's own kernels, because cuBLAS has no algorithm or does not take its algorithm for some
	// numbers of rows.
	OwnCalls    int64  `json:"own_calls"`
	OwnRows     int64  `json:"own_rows"`
	RefusedRows []int  `json:"refused_rows,omitempty"` // the numbers of rows for which Algorithm is not taken, ascending
	RefusedWhy  string `json:"refused_why,omitempty"`  // the reason for the last of them
}

// Algorithm describes a choice of cuBLASLt by the numbers of cublasLt.h. Unknown stands for an attribute that the
// library does not tell.
type Algorithm struct {
	ID           int     `json:"id"`
	Tile         int     `json:"tile"`          // cublasLtMatmulTile_t
	Stages       int     `json:"stages"`        // cublasLtMatmulStages_t
	InnerShape   int     `json:"inner_shape"`   // cublasLtMatmulInnerShape_t
	ClusterShape int     `json:"cluster_shape"` // cublasLtClusterShape_t
	SplitK       int     `json:"split_k"`
	Workspace    uint64  `json:"workspace"` // bytes
	Waves        float32 `json:"waves"`     // of blocks over the device, for the rows that were asked for
}

// Unknown is an attribute of an Algorithm that the library does not tell.
const Unknown = -1

// Products reports on every shape of matrix product that a device has met, at any time, also after Close; the large
// shapes come first. Without cuBLAS there is nothing to report.
func (b *Backend) Products() []ProductReport {
	if b.products == nil {
		return nil
	}
	return b.products.report()
}

func (p *products) report() []ProductReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []ProductReport
	for _, made := range p.plans {
		r := made.report
		r.RefusedRows = slices.Clone(r.RefusedRows)
		if made.unsuitable != nil {
			r.Refusal = made.unsuitable.Error()
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b ProductReport) int {
		return cmp.Or(cmp.Compare(b.N*b.K, a.N*a.K), cmp.Compare(a.shape(), b.shape()))
	})
	return list
}

// read describes an answer of the heuristic. An attribute that a version of the library does not know is no error.
func (p *products) read(f *driver.HeuristicResult) *Algorithm {
	attribute := func(number int32, bytes uint64) int {
		value, written := uint64(0), uint64(0)
		if p.lt.AlgoConfig(&f.Algo, number, &value, bytes, &written) != 0 {
			return Unknown
		}
		return int(int32(uint32(value)))
	}
	return &Algorithm{
		ID: attribute(driver.ConfigID, 4), Tile: attribute(driver.ConfigTile, 4), Stages: attribute(driver.ConfigStages, 4),
		InnerShape: attribute(driver.ConfigInnerShape, 2), ClusterShape: attribute(driver.ConfigClusterShape, 2),
		SplitK: attribute(driver.ConfigSplitK, 4), Workspace: f.Workspace, Waves: f.Waves,
	}
}

// taken, own and refuse count a product that cuBLAS computed, one of the package's own, and a number of rows that the
// algorithm does not take.
func (r *ProductReport) taken(rows int) { r.Calls, r.Rows = r.Calls+1, r.Rows+int64(rows) }
func (r *ProductReport) own(rows int)   { r.OwnCalls, r.OwnRows = r.OwnCalls+1, r.OwnRows+int64(rows) }

func (r *ProductReport) refuse(rows int, why error) {
	if i, known := slices.BinarySearch(r.RefusedRows, rows); !known {
		r.RefusedRows = slices.Insert(r.RefusedRows, i, rows)
	}
	r.RefusedWhy = why.Error()
}

// refusedShown is how many numbers of rows String names.
const refusedShown = 5

// shape names the product as a profile does.
func (r ProductReport) shape() string {
	text := fmt.Sprintf("linear %dx%d", r.N, r.K)
	if r.Bias {
		text += " + bias"
	}
	if r.Add {
		text += " + add"
	}
	if r.Wide {
		text += " in float32"
	}
	return text
}

// String is the report in one line.
func (r ProductReport) String() string {
	own := fmt.Sprintf("own product, %s in %s", many(r.OwnRows, "row"), many(r.OwnCalls, "call"))
	if r.Algorithm == nil {
		return fmt.Sprintf("%s: %s: %s", r.shape(), own, r.Refusal)
	}
	text := fmt.Sprintf("%s: cuBLAS %s, asked for %s, took %s in %s",
		r.shape(), r.Algorithm, many(r.AskedRows, "row"), many(r.Rows, "row"), many(r.Calls, "call"))
	if n := len(r.RefusedRows); n > 0 {
		var shown []string
		for _, rows := range r.RefusedRows[:min(n, refusedShown)] {
			shown = append(shown, fmt.Sprint(rows))
		}
		if n > refusedShown {
			shown = append(shown, "…")
		}
		text += fmt.Sprintf("; %s: refused for %s of rows (%s): %s",
			own, many(n, "number"), strings.Join(shown, ", "), r.RefusedWhy)
	}
	return text
}

// String lists the numbers of an algorithm, with a dash for an unknown one.
func (a Algorithm) String() string {
	dash := func(n int) string {
		if n == Unknown {
			return "-"
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("algorithm %s, tile %s, stages %s, inner shape %s, cluster shape %s, split-K %s, "+
		"workspace %d bytes, %.2f waves", dash(a.ID), dash(a.Tile), dash(a.Stages), dash(a.InnerShape),
		dash(a.ClusterShape), dash(a.SplitK), a.Workspace, a.Waves)
}

// many writes a number with its noun.
func many[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
