package cuda

import (
	"fmt"
	"strings"
	"sync"
)

// contract describes a group of kernels: their names, their parameters in order, and their geometry. Both the Go code
// and the CUDA sources rely on it. The table in src/README.md is generated from the variable contracts, which a test
// compares with the committed PTX.
type contract struct {
	// names are separated by spaces. <T> stands for bf16, fp16 and fp32, <H> for bf16 and fp16, <d> for each head size.
	names string
	// params are C declarations, separated by semicolons. A declaration may be followed by a remark.
	params string
	tile   tile
	block  int // number of threads in a block
	shared func(d int) int
}

// tile is the part of a result that one block computes: rows × cols elements. The field "of" is a name for the number
// of rows of the result, such as M, and the field "by" a name for its number of columns, such as N. The grid's x counts
// the tiles along the columns, and its y the tiles along the rows. If the rows need more than maxGridY tiles, the
// kernel loops over the rest. If cols is 0 (a tile has whole rows) or flat is set, x counts all tiles.
type tile struct {
	rows, cols int
	of, by     string
	flat       bool
}

// maxGridY is the largest second dimension of a grid that CUDA allows.
const maxGridY = 65535

// grid returns the grid for a result of the given size.
func (t tile) grid(rows, cols int) (x, y int) {
	switch {
	case t.cols == 0:
		return ceilDiv(rows, t.rows), 1
	case t.flat:
		return ceilDiv(rows, t.rows) * ceilDiv(cols, t.cols), 1
	}
	return ceilDiv(cols, t.cols), min(ceilDiv(rows, t.rows), maxGridY)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

const (
	// attentionRows is the number of query rows in one block of an attention.
	attentionRows = 64

	normParams = "float *out32 [T, c] or null; T *out [T, c] or null; const float *in [T, c]; " +
		"const float *add [T, c] or null; const float *gain [c]; const float *bias [c]; float eps; int rows; " +
		"int cols (at most what the name says)"
	gemmParams = "const T *in [M, K]; const T *w [N, K], of geglu [2N, K]; const float *bias [N], of geglu [2N], or null; " +
		"const float *add [M, N] or null; float *out32 [M, N] or null; T *out [M, N] or null; int M; int N; int K"
	convertParams = "int rows; int cols; int dst_pitch; int src_pitch (elements)"
	headParams    = "const int *cu; const int2 *blocks (sequence, first row), one for each 64 query rows; " +
		"int heads; float scale; "
	turnParams = "; const float2 *turns [positions, d/2] (cos, sin); float qscale"
	unturned   = "const T *qkv [T, 3·heads·d], not rotated yet; "
	divided    = "const float *slopes [heads], divided by scale, or null"
	undivided  = "const float *slopes [heads] or null"
	attended   = "T *out [T, heads·d]; "
)

var (
	headTile    = tile{rows: 1, cols: 1, of: "heads", by: "number of blocks"}
	elementTile = tile{rows: 2, cols: 1024, of: "rows", by: "cols"}
	convertTile = tile{rows: 1, cols: 256, of: "rows", by: "cols"}
)

// contracts lists all kernels.
var contracts = []contract{
	{"positions", "int *pos [T]; int *seq [T]; const int *cu", tile{rows: 1, of: "S"}, 128, nil},
	{"embed_scale", "float *scale [S]; const int *ids [T]; const int *cu; float base; int mask",
		tile{rows: 1, of: "S"}, 32, nil},
	{"embed_<T>", "float *out32 [T, c] or null; T *out [T, c] or null; const T *table [vocabulary, c]; const int *ids; " +
		"const int *seq; const float *scale [S]; const float *type [c] or null; int mask; int rows; int cols",
		tile{rows: 1, of: "rows"}, 128, nil},
	{"layernorm_512_<T> layernorm_1280_<T> layernorm_2560_<T>", normParams, tile{rows: 4, of: "rows"}, 128, nil},
	{"layernorm_8192_<T>", normParams, tile{rows: 1, of: "rows"}, 256, nil},
	{"attention_<d>_<H>", attended + "const T *qkv [T, 3·heads·d]; " + headParams + divided, headTile, 128, sharedHalf},
	{"attention_<d>_fp32", attended + "const T *qkv [T, 3·heads·d]; " + headParams + undivided, headTile, 256, sharedFull},
	{"rotate_keys_<H>", attended + "const T *qkv [T, 3·heads·d]; const int *pos [T]; " +
		"const float2 *turns [positions, d/2] (cos, sin); int heads; int d; int rows",
		tile{rows: 1, cols: 1024, of: "rows", by: "heads·d"}, 128, nil},
	{"attention_rotary_<d>_<H>",
		attended + unturned + "const T *keys [T, heads·d], rotated; " + headParams + divided + turnParams,
		headTile, 128, sharedHalf},
	{"attention_rotary_<d>_fp32", attended + unturned + headParams + undivided + turnParams, headTile, 256, sharedFull},
	{"activate_<T>", "T *x [T, c]; const float *bias [c] or null; int rows; int cols", elementTile, 128, nil},
	{"gate_<T>", "T *out [T, c]; const T *in [T, 2c]; int rows; int cols (c)", elementTile, 128, nil},
	{"pool", "float *out [S, c]; const float *in [T, c]; " +
		"const int2 *ranges [S] (first row of the batch, row after the last); " +
		"int cols; int sequences", tile{rows: 1, cols: 32, of: "S", by: "cols"}, 256, nil},
	{"narrow_<H>", "T *dst; const float *src; " + convertParams, convertTile, 256, nil},
	{"widen_<H>", "float *dst; const T *src; " + convertParams, convertTile, 256, nil},
	{"gemm_<H> gemm_gelu_<H>", gemmParams, tile{128, 128, "M", "N", true}, 128, always(65536)},
	{"gemm_geglu_<H>", gemmParams, tile{128, 64, "M", "N", true}, 128, always(65536)},
	{"gemm_fp32 gemm_gelu_fp32", gemmParams, tile{128, 64, "M", "N", true}, 256, always(30720)},
	{"gemm_geglu_fp32", gemmParams, tile{128, 32, "M", "N", true}, 256, always(30720)},
}

// sharedHalf and sharedFull return the bytes of dynamic shared memory that an attention kernel needs for heads of d
// columns: sharedHalf for 16-bit operands, sharedFull for float32.
func sharedHalf(d int) int { return 512 * ((d+15)&^15 + 8) }
func sharedFull(d int) int { return 4 * (128*(d+4) + 64*36) }

func always(n int) func(int) int { return func(int) int { return n } }

// attentionHeads lists the numbers of columns of a head for which there are attention kernels. normWidths lists, for
// each LayerNorm kernel, the number of columns of its widest row.
var (
	attentionHeads = []int{16, 24, 32, 64, 128}
	normWidths     = []int{512, 1280, 2560, 8192}
)

// kernelSpec describes one kernel: its number of parameters, its tile, the threads in a block, and the bytes of dynamic
// shared memory of a block.
type kernelSpec struct {
	params int
	tile   tile
	block  int
	shared int
}

// kernelSpecs returns the description of each kernel by its name.
var kernelSpecs = sync.OnceValue(func() map[string]kernelSpec { return expand(contracts) })

func expand(list []contract) map[string]kernelSpec {
	specs := map[string]kernelSpec{}
	for _, c := range list {
		params := strings.Count(c.params, "; ") + 1
		for _, name := range strings.Fields(c.names) {
			types := []string{""}
			switch {
			case strings.Contains(name, "<T>"):
				types = []string{"bf16", "fp16", "fp32"}
			case strings.Contains(name, "<H>"):
				types = []string{"bf16", "fp16"}
			}
			for _, t := range types {
				typed := strings.NewReplacer("<T>", t, "<H>", t).Replace(name)
				for _, d := range attentionHeads {
					spec := kernelSpec{params, c.tile, c.block, 0}
					if c.shared != nil {
						spec.shared = c.shared(d)
					}
					specs[strings.ReplaceAll(typed, "<d>", fmt.Sprint(d))] = spec
				}
			}
		}
	}
	return specs
}
