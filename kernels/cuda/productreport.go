package cuda

import (
	"cmp"
	"fmt"
	"slices"

	"seqembed/kernels/cuda/driver"
)

// Product describes a matrix product, except its number of rows:
//
//	Out[rows, N] = In[rows, K] · W[N, K]ᵀ + bias + Add
type Product struct {
	N    int  `json:"n"`
	K    int  `json:"k"`
	Wide bool `json:"wide"` // Out and bias are float32; otherwise they have the operands' type
	Bias bool `json:"bias"`
	Add  bool `json:"add"`
}

// String returns a name such as "linear 2304x768 + bias in float32".
func (p Product) String() string {
	text := fmt.Sprintf("linear %dx%d", p.N, p.K)
	if p.Bias {
		text += " + bias"
	}
	if p.Add {
		text += " + add"
	}
	if p.Wide {
		text += " in float32"
	}
	return text
}

// ProductReport describes how a matrix product is computed on a device with cuBLAS, and how often it has been computed.
type ProductReport struct {
	Product

	// AskedRows is the number of rows for which cuBLAS offered the chosen algorithm. If no algorithm was chosen, it is
	// the number of rows in the last query, or 0 if cuBLAS was never asked.
	AskedRows int `json:"asked_rows"`
	// Algorithm describes the chosen algorithm by its attributes, with the numbers of cublasLt.h. A dash stands for an
	// attribute that this version of the library does not report. Algorithm is empty if no algorithm is usable.
	Algorithm string `json:"algorithm,omitempty"`
	Calls     int64  `json:"calls"` // number of products that cuBLAS computed
	Rows      int64  `json:"rows"`  // total number of rows of the products that cuBLAS computed

	// OwnCalls and OwnRows count the products that the package's own kernels computed, and the rows of these products.
	// There are three reasons for such a product: cuBLAS offers no usable algorithm, the chosen algorithm does not
	// support the number of rows, or the types of Add and Out differ. Refusal is the last such reason.
	OwnCalls int64  `json:"own_calls"`
	OwnRows  int64  `json:"own_rows"`
	Refusal  string `json:"refusal,omitempty"`
}

// String returns the report as one line.
func (r ProductReport) String() string {
	text := r.Product.String()
	if r.Algorithm != "" {
		text += fmt.Sprintf(": cuBLAS %s, asked for %s, took %s in %s",
			r.Algorithm, many(r.AskedRows, "row"), many(r.Rows, "row"), many(r.Calls, "call"))
	}
	if r.Refusal != "" {
		text += fmt.Sprintf(": own product, %s in %s: %s", many(r.OwnRows, "row"), many(r.OwnCalls, "call"), r.Refusal)
	}
	return text
}

// many returns a number with its noun, in the plural unless n is 1.
func many[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Products returns a report on every matrix product in the programs that the backend has compiled, the product with the
// largest weight matrix first. It may be called after Close. Without cuBLAS it returns nil.
func (b *Backend) Products() (list []ProductReport) {
	if b.products == nil {
		return nil
	}
	b.products.mu.Lock()
	defer b.products.mu.Unlock()
	for _, made := range b.products.plans {
		list = append(list, made.ProductReport)
	}
	slices.SortFunc(list, func(a, b ProductReport) int {
		return cmp.Or(cmp.Compare(b.N*b.K, a.N*a.K), cmp.Compare(a.Product.String(), b.Product.String()))
	})
	return list
}

// algorithm describes an algorithm that cuBLAS offers, as the text of ProductReport.Algorithm.
func (p *products) algorithm(f *driver.HeuristicResult) string {
	number := func(attribute int32, bytes uint64) string {
		if n, known := p.attribute(&f.Algo, attribute, bytes); known {
			return fmt.Sprint(n)
		}
		return "-"
	}
	return fmt.Sprintf("algorithm %s, tile %s, stages %s, inner shape %s, cluster shape %s, split-K %s, "+
		"workspace %d bytes, %.2f waves", number(driver.ConfigID, 4), number(driver.ConfigTile, 4),
		number(driver.ConfigStages, 4), number(driver.ConfigInnerShape, 2), number(driver.ConfigClusterShape, 2),
		number(driver.ConfigSplitK, 4), f.Workspace, f.Waves)
}
