// Command _gelu computes the polynomial P that the function gelu in ../device.cuh uses. P(z) approximates log2 Φ(−z) on
// 0 ≤ z ≤ 6, has degree 8, and P(0) = −1. The command uses the exchange algorithm of Remez (E. W. Cheney, Introduction
// to Approximation Theory, chapter 3). An error δ of P changes Φ by ln2·Φ·δ and the GELU by z·ln2·Φ·δ. The command
// minimizes the largest value of these two errors and of 1e-4·ln2·δ. The last value bounds the relative error of Φ,
// also where Φ is small.
//
//	go run ./kernels/cuda/src/_gelu
package main

import (
	"fmt"
	"log"
	"math"
)

const (
	degree = 8
	end    = 6.0
	tail   = 1e-4
	grid   = 60000 // number of points at which extrema are searched
)

func phi(z float64) float64 { return 0.5 * math.Erfc(z/math.Sqrt2) } // Φ(−z)

func weight(z float64) float64 { return math.Ln2 * max(z*phi(z), phi(z), tail) }

// polynomial contains the coefficients, that of the constant term first.
type polynomial []float64

func (p polynomial) at(z float64) float64 {
	v := 0.0
	for k := len(p) - 1; k >= 0; k-- {
		v = v*z + p[k]
	}
	return v
}

// levelled returns the polynomial whose weighted error at degree+1 points is ±level, with alternating signs.
func levelled(points []float64) (p polynomial, level float64) {
	n := len(points)
	rows := make([][]float64, n) // the last column is the right-hand side
	for i, z := range points {
		rows[i] = make([]float64, n+1)
		for k := range degree {
			rows[i][k] = math.Pow(z/end, float64(k+1)) * weight(z)
		}
		rows[i][degree] = 1 - 2*float64(i%2)
		rows[i][n] = (math.Log2(phi(z)) + 1) * weight(z)
	}
	x := solve(rows)
	p = polynomial{-1}
	for k := range degree {
		p = append(p, x[k]/math.Pow(end, float64(k+1)))
	}
	return p, math.Abs(x[degree])
}

// solve solves a linear system by Gauss-Jordan elimination with row pivots.
func solve(rows [][]float64) []float64 {
	n := len(rows)
	for i := range n {
		pivot := i
		for j := i; j < n; j++ {
			if math.Abs(rows[j][i]) > math.Abs(rows[pivot][i]) {
				pivot = j
			}
		}
		rows[i], rows[pivot] = rows[pivot], rows[i]
		for j := range n {
			if j == i {
				continue
			}
			factor := rows[j][i] / rows[i][i]
			for k := i; k <= n; k++ {
				rows[j][k] -= factor * rows[i][k]
			}
		}
	}
	x := make([]float64, n)
	for i := range n {
		x[i] = rows[i][n] / rows[i][i]
	}
	return x
}

// extrema returns the points where the weighted error is largest between its changes of sign, and the largest error.
func extrema(p polynomial) (points []float64, largest float64) {
	at, size, sign := 0.0, 0.0, 0.0
	for i := 1; i <= grid; i++ {
		z := end * float64(i) / grid
		e := (p.at(z) - math.Log2(phi(z))) * weight(z)
		if s := math.Copysign(1, e); s != sign {
			if sign != 0 {
				points = append(points, at)
			}
			size, sign = 0, s
		}
		if math.Abs(e) > size {
			at, size = z, math.Abs(e)
		}
		largest = max(largest, math.Abs(e))
	}
	return append(points, at), largest
}

func main() {
	points := make([]float64, degree+1)
	for i := range points {
		points[i] = end * (1 - math.Cos(math.Pi*(float64(i)+0.5)/(degree+1))) / 2
	}
	for range 50 {
		p, level := levelled(points)
		next, largest := extrema(p)
		if largest < 1.0001*level {
			report(p, level)
			return
		}
		if len(next) != len(points) {
			log.Fatalf("%d extrema, and not %d", len(next), len(points))
		}
		points = next
	}
	log.Fatal("no convergence")
}

func report(p polynomial, level float64) {
	for k := degree; k >= 0; k-- {
		fmt.Printf("z^%d %.9g\n", k, float32(p[k]))
		p[k] = float64(float32(p[k]))
	}
	ofPhi, ofGELU, relative, beyond := 0.0, 0.0, 0.0, 0.0
	for i := range 4 * grid {
		z := end * float64(i) / grid
		e := math.Abs(math.Exp2(p.at(z)) - phi(z))
		ofPhi, ofGELU = max(ofPhi, e), max(ofGELU, z*e)
		if z <= end {
			relative = max(relative, e/phi(z))
		} else {
			beyond = max(beyond, math.Exp2(p.at(z)))
		}
	}
	fmt.Printf("levelled error %.3g; with coefficients in float32: of Φ %.3g, of the GELU %.3g\n", level, ofPhi, ofGELU)
	fmt.Printf("relative %.3g on [−%g, 0], Φ at most %.3g beyond\n", relative, end, beyond)
}
