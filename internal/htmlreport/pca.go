package htmlreport

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// blockSize is the number of directions that Project iterates at once. Only two are needed. With more, Project also
// converges quickly if the third principal component has nearly the variance of the second.
const blockSize = 8

// maxIterations bounds the iterations of Project, which usually needs 10 or 20.
const maxIterations = 60

// Project projects rows of equal length on their first two principal components. shares are the fractions of the total
// variance along the two components. The sign of a component is chosen such that its element with the largest absolute
// value is positive.
//
// Project uses the block power method (subspace iteration) with the Rayleigh-Ritz step, see Golub and Van Loan, Matrix
// Computations, section 8.2. It never computes the covariance: each iteration costs two products of the rows with a few
// vectors.
func Project(rows [][]float32) (points [][2]float64, shares [2]float64) {
	points = make([][2]float64, len(rows))
	if len(rows) == 0 || len(rows[0]) == 0 {
		return points, shares
	}
	c := newCentered(rows)
	if c.total == 0 {
		return points, shares
	}
	axes := c.axes()
	for _, axis := range axes {
		if largest := slices.MaxFunc(axis, func(a, b float64) int { return cmp.Compare(math.Abs(a), math.Abs(b)) }); largest < 0 {
			stretch(axis, -1)
		}
	}
	for i, row := range rows {
		c.center(row)
		for k, axis := range axes {
			points[i][k] = dot(c.row, axis)
			shares[k] += points[i][k] * points[i][k] / c.total
		}
	}
	return points, shares
}

// centered stands for a matrix minus the mean of its rows. It keeps the rows as they are, and subtracts the mean from
// one row at a time.
type centered struct {
	rows  [][]float32
	mean  []float64
	row   []float64 // the row that was centered last
	total float64   // sum of the squares of all values, after the mean is subtracted
}

func newCentered(rows [][]float32) *centered {
	c := &centered{rows: rows, mean: make([]float64, len(rows[0])), row: make([]float64, len(rows[0]))}
	for _, row := range rows {
		for i, v := range row {
			c.mean[i] += float64(v) / float64(len(rows))
		}
	}
	for _, row := range rows {
		c.center(row)
		c.total += dot(c.row, c.row)
	}
	return c
}

func (c *centered) center(row []float32) {
	for i, v := range row {
		c.row[i] = float64(v) - c.mean[i]
	}
}

// axes returns the first two principal components as unit vectors, or only one if the rows have a single column.
func (c *centered) axes() [][]float64 {
	block := make([][]float64, min(blockSize, len(c.mean)))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		block[i] = make([]float64, len(c.mean))
		for j := range block[i] {
			block[i][j] = random.NormFloat64()
		}
	}
	orthonormalize(block)
	wanted := block[:min(2, len(block))]
	before := make([]float64, len(wanted))
	for range maxIterations {
		next := c.scatter(block)
		small := make([][]float64, len(block)) // the scatter matrix, projected on the block
		for i := range small {
			small[i] = make([]float64, len(block))
			for j := range small[i] {
				small[i][j] = dot(block[i], next[j])
			}
		}
		values, vectors := eigen(small)
		combine(block, next, vectors)
		orthonormalize(block)
		moved := 0.0
		for i := range wanted {
			moved = max(moved, math.Abs(values[i]-before[i]))
			before[i] = values[i]
		}
		if moved <= 1e-9*values[0] {
			break
		}
	}
	return wanted
}

// scatter returns the product of the scatter matrix with each vector. The scatter matrix is the sum of the outer
// products of each centered row with itself.
func (c *centered) scatter(vectors [][]float64) [][]float64 {
	sums := make([][]float64, len(vectors))
	for i := range sums {
		sums[i] = make([]float64, len(c.mean))
	}
	for _, row := range c.rows {
		c.center(row)
		for i, v := range vectors {
			add(sums[i], dot(c.row, v), c.row)
		}
	}
	return sums
}

// combine replaces vectors[k] by the sum of m[i][k]·from[i] over all i.
func combine(vectors, from, m [][]float64) {
	for k := range vectors {
		clear(vectors[k])
		for i := range from {
			add(vectors[k], m[i][k], from[i])
		}
	}
}

// orthonormalize makes vectors orthonormal, in their order, by the modified Gram-Schmidt process. It subtracts
// projections twice, because rounding errors remain after the first time. A vector that depends on those before it
// becomes 0.
func orthonormalize(vectors [][]float64) {
	for i, v := range vectors {
		length := math.Sqrt(dot(v, v))
		for range 2 {
			for _, u := range vectors[:i] {
				add(v, -dot(u, v), u)
			}
		}
		if rest := math.Sqrt(dot(v, v)); rest > 1e-12*length {
			stretch(v, 1/rest)
		} else {
			clear(v)
		}
	}
}

// eigen returns the eigenvalues of a symmetric matrix, the largest first, and the eigenvectors as columns. It uses
// Jacobi's method and overwrites m.
func eigen(m [][]float64) (values []float64, vectors [][]float64) {
	n := len(m)
	q := make([][]float64, n)
	for i := range q {
		q[i] = make([]float64, n)
		q[i][i] = 1
	}
	for range 30 { // sweeps over all pairs; fewer than ten usually suffice
		for i := range n {
			for j := i + 1; j < n; j++ {
				rotate(m, q, i, j)
			}
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(m[b][b], m[a][a]) })
	values, vectors = make([]float64, n), make([][]float64, n)
	for i := range vectors {
		vectors[i] = make([]float64, n)
		for k, from := range order {
			values[k], vectors[i][k] = m[from][from], q[i][from]
		}
	}
	return values, vectors
}

// rotate makes m[i][j] of a symmetric matrix 0 by a rotation, which it applies to the columns of q as well.
func rotate(m, q [][]float64, i, j int) {
	if m[i][j] == 0 {
		return
	}
	theta := (m[j][j] - m[i][i]) / (2 * m[i][j])
	t := 1 / (math.Abs(theta) + math.Hypot(theta, 1))
	if theta < 0 {
		t = -t
	}
	cos := 1 / math.Hypot(t, 1)
	sin := t * cos
	for k := range m {
		m[k][i], m[k][j] = cos*m[k][i]-sin*m[k][j], sin*m[k][i]+cos*m[k][j]
		q[k][i], q[k][j] = cos*q[k][i]-sin*q[k][j], sin*q[k][i]+cos*q[k][j]
	}
	for k := range m {
		m[i][k], m[j][k] = cos*m[i][k]-sin*m[j][k], sin*m[i][k]+cos*m[j][k]
	}
}

func dot(a, b []float64) (sum float64) {
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// add adds a multiple of v to sum.
func add(sum []float64, factor float64, v []float64) {
	for i := range sum {
		sum[i] += factor * v[i]
	}
}

func stretch(v []float64, factor float64) {
	for i := range v {
		v[i] *= factor
	}
}
