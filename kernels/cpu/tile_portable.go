package cpu

// tilePortable is a tileFunc for one panel. It processes four columns at a time, so that three rows of sums stay in
// registers.
func tilePortable(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, _ int) {
	finish := func(sum *[4]float32, r, c int) {
		if bias != nil {
			addTo(sum[:], bias[c:])
		}
		if add != nil {
			addTo(sum[:], add[r*ldadd+c:])
		}
		*(*[4]float32)(out[r*ldout+c:]) = *sum
	}
	r := 0
	for ; r+3 <= rows; r += 3 {
		a0, a1, a2 := a[r*lda:][:k], a[(r+1)*lda:][:k], a[(r+2)*lda:][:k]
		for c := 0; c < panelCols; c += 4 {
			sums := tile3x4(a0, a1, a2, panel[c:])
			for i := range sums {
				finish(&sums[i], r+i, c)
			}
		}
	}
	for ; r < rows; r++ {
		row := a[r*lda:][:k]
		for c := 0; c < panelCols; c += 4 {
			sum := tile1x4(row, panel[c:])
			finish(&sum, r, c)
		}
	}
}

// tile3x4 returns the sums of 3 rows for 4 columns of the panel. These 12 sums leave 4 of the 16 floating-point
// registers of amd64 for other values.
func tile3x4(a0, a1, a2, panel []float32) (sums [3][4]float32) {
	var s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23 float32
	a1, a2 = a1[:len(a0)], a2[:len(a0)]
	for k, x := range a0 {
		b := (*[4]float32)(panel[k*panelCols:])
		b0, b1, b2, b3 := b[0], b[1], b[2], b[3]
		s00 += x * b0
		s01 += x * b1
		s02 += x * b2
		s03 += x * b3
		y := a1[k]
		s10 += y * b0
		s11 += y * b1
		s12 += y * b2
		s13 += y * b3
		z := a2[k]
		s20 += z * b0
		s21 += z * b1
		s22 += z * b2
		s23 += z * b3
	}
	return [3][4]float32{{s00, s01, s02, s03}, {s10, s11, s12, s13}, {s20, s21, s22, s23}}
}

func tile1x4(a, panel []float32) [4]float32 {
	var s0, s1, s2, s3 float32
	for k, x := range a {
		b := (*[4]float32)(panel[k*panelCols:])
		s0 += x * b[0]
		s1 += x * b[1]
		s2 += x * b[2]
		s3 += x * b[3]
	}
	return [4]float32{s0, s1, s2, s3}
}
