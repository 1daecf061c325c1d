package htmlreport

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// withoutEnd matches the parts of a page that are valid in HTML and not in XML: the doctype and elements without an end
// tag.
var withoutEnd = regexp.MustCompile("^<!doctype html>|<meta [^>]*>")

// written returns a page as HTML. It fails the test unless the page, without the parts that withoutEnd matches, is
// well-formed XML.
func written(t *testing.T, p *Page) string {
	t.Helper()
	var b strings.Builder
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(withoutEnd.ReplaceAllString(b.String(), "")))
	d.Entity = xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return b.String()
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
	}
}

// hostile is a text that would be a script, an attribute or the end of an element if a page contained it unescaped.
const hostile = `</title></style><script>alert("1")</script>" onload='x' &amp; <b>`

// TestPageIsSelfContained checks that a page contains no script and no address, and that its texts are escaped, even if
// every text is hostile.
func TestPageIsSelfContained(t *testing.T) {
	text := written(t, &Page{Title: hostile, Outcome: hostile, Facts: []Fact{{hostile, hostile}}, Figures: []Fact{{hostile, hostile}},
		Sections: []Section{{Title: hostile, Text: hostile, Charts: []Chart{
			Areas{Title: hostile, Text: hostile, Unit: hostile, Width: time.Second, Time: time.Second, Names: []string{hostile}, Amounts: [][]float64{{1}}},
			lengthsOf(t, hostile, 5, 6, 7),
			Scatter{Title: hostile, Text: hostile, XLabel: hostile, YLabel: hostile, Groups: []Group{{hostile, []Point{{1, 2, hostile}}}}},
		}}},
		Tables: []Table{{Title: hostile, Text: hostile, Columns: []Column{{Name: hostile, Bar: true}}, Rows: [][]string{{hostile}}, More: hostile}},
		Notes:  []string{hostile}})
	for _, part := range []string{"<script", "<b>", "http:", "https:", "src=", "href=", "url(", "@import", "' onload", "ZgotmplZ"} {
		if strings.Contains(text, part) {
			t.Errorf("the page contains %s", part)
		}
	}
	if n := strings.Count(text, "&lt;script&gt;"); n < 20 {
		t.Errorf("only %d escaped scripts", n)
	}
	for _, part := range []string{"prefers-color-scheme: dark", `lang="en"`, "default-src 'none'", `role="img"`, `scope="col"`} {
		if !strings.Contains(text, part) {
			t.Errorf("the page does not contain %s", part)
		}
	}
}

func lengthsOf(t *testing.T, name string, lengths ...int) Histogram {
	t.Helper()
	h := Histogram{Title: name, Text: name, XLabel: name, Unit: name, Plain: name, Mark: name, Limit: 6}
	for _, n := range lengths {
		h.Lengths.Add(n, n > 6)
	}
	return h
}

// TestEmptyCharts checks that charts without data have a text and no picture.
func TestEmptyCharts(t *testing.T) {
	text := written(t, &Page{Title: "t", Sections: []Section{{Charts: []Chart{Areas{Text: "none 1"}, Histogram{Text: "none 2"}, Scatter{Text: "none 3"},
		Areas{Text: "none 4", Width: 1, Time: 1, Names: []string{"a"}, Amounts: [][]float64{{0}}}}}}})
	if strings.Contains(text, "<svg") || strings.Count(text, `<p class="text">none `) != 4 {
		t.Error(text)
	}
}

// TestLengths checks that every length is in exactly one bar, between the ends of the bar, and that Merge adds up
// counts.
func TestLengths(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var one, other Lengths
		var all []int
		most := math.Pow(10, random.Float64()*9)
		for range 1 + random.IntN(30) {
			n := 1 + int(random.Float64()*most)
			all = append(all, n)
			if l := []*Lengths{&one, &other}[random.IntN(2)]; random.IntN(2) > 0 {
				l.Add(n, true)
			} else {
				l.Add(n, false)
			}
		}
		one.Merge(&other)
		bars := one.bars()
		if len(bars) > drawnBars {
			t.Fatalf("%d bars", len(bars))
		}
		for i, b := range bars {
			within := int64(0)
			for _, n := range all {
				if n >= b.from && n < b.to {
					within++
				}
			}
			if within != b.n || b.marked > b.n || i > 0 && bars[i-1].to != b.from {
				t.Fatalf("bar %+v after %+v has %d of the lengths %v", b, bars[max(i-1, 0)], within, all)
			}
		}
	}
	for n := 1; n < 46; n++ {
		if !slices.Contains(classes, n) {
			t.Errorf("%d has no class of its own", n)
		}
	}
	var huge Lengths
	huge.Add(1<<62, false)
	if bars := huge.bars(); len(bars) != 1 || bars[0].n != 1 {
		t.Errorf("bars %v", bars)
	}
}

// TestRates checks the rates of more intervals than a chart shows. The rate of joined intervals must be the sum of
// their amounts divided by the sum of their lengths. The rate of a shorter last interval must be its amount divided by
// its own length.
func TestRates(t *testing.T) {
	a := Areas{Width: time.Second, Time: 199*time.Second + 500*time.Millisecond, Names: []string{"a"}, Amounts: [][]float64{make([]float64, 200)}}
	for i := range a.Amounts[0] {
		a.Amounts[0][i] = 10
	}
	a.Amounts[0][199] = 5
	rates, width := a.rates()
	if width != 3*time.Second || len(rates[0]) != 67 {
		t.Fatalf("%d intervals of %v", len(rates[0]), width)
	}
	for i, r := range rates[0] {
		if math.Abs(r-10) > 1e-9 {
			t.Errorf("interval %d: %v per second", i, r)
		}
	}
}

// TestTicks checks that the ticks of axes are few, round and within the axis.
func TestTicks(t *testing.T) {
	for _, c := range []struct {
		s    scale
		want string
	}{
		{scale{0, 10, 0, 100, false}, "0 2 4 6 8 10"},
		{scale{0, 2.1e6, 0, 100, false}, "0 500k 1.0M 1.5M 2.0M"},
		{scale{0, 43000, 0, 100, false}, "0 10k 20k 30k 40k"},
		{scale{-0.31, 0.22, 0, 100, false}, "-0.2 0 0.2"},
		{scale{30, 30000, 0, 100, true}, "50 100 200 500 1,000 2,000 5,000 10k 20k"},
		{scale{1, 1e7, 0, 100, true}, "1 10 100 1,000 10k 100k 1M 10M"},
		{scale{260, 340, 0, 100, true}, "260 280 300 320 340"},
	} {
		var texts []string
		for _, tick := range c.s.ticks(5) {
			texts = append(texts, tick.Text)
		}
		if got := strings.Join(texts, " "); got != c.want {
			t.Errorf("%v: ticks %s, want %s", c.s, got, c.want)
		}
	}
}

// TestProject compares Project with the eigenvalues and eigenvectors of the covariance matrix, which Jacobi's method
// computes. Each share must be an eigenvalue divided by the sum of all eigenvalues. Each coordinate must be the
// projection on an eigenvector, except for the sign.
func TestProject(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct{ rows, dim int }{{50, 20}, {200, 5}, {7, 40}, {30, 3}, {10, 2}} {
		rows := make([][]float32, c.rows)
		for i := range rows {
			rows[i] = make([]float32, c.dim)
			for j := range rows[i] {
				rows[i][j] = float32(100 + random.NormFloat64()/float64(j+1)*float64(1+i%3))
			}
		}
		points, shares := Project(rows)
		centered := newCentered(rows)
		covariance := make([][]float64, c.dim)
		for i := range covariance {
			covariance[i] = make([]float64, c.dim)
		}
		for _, row := range rows {
			centered.center(row)
			for i := range covariance {
				add(covariance[i], centered.row[i], centered.row)
			}
		}
		values, vectors := eigen(covariance)
		total := 0.0
		for _, v := range values {
			total += v
		}
		for k := range 2 {
			if want := values[k] / total; math.Abs(shares[k]-want) > 1e-6 {
				t.Errorf("%v: component %d has %.9f of the variance, want %.9f", c, k, shares[k], want)
			}
			same := 0.0 // dot product of the coordinates and of the projections on the eigenvector
			for i, row := range rows {
				centered.center(row)
				want := 0.0
				for j := range vectors {
					want += vectors[j][k] * centered.row[j]
				}
				same += want * points[i][k]
			}
			if cosine := math.Abs(same) / values[k]; math.Abs(cosine-1) > 1e-5 {
				t.Errorf("%v: component %d has the cosine %.7f with the eigenvector", c, k, cosine)
			}
		}
		if again, _ := Project(rows); !slices.Equal(again, points) {
			t.Errorf("%v: another projection of the same rows", c)
		}
	}
}

// TestProjectDegenerate checks that Project gives points without NaN, and the right shares of the variance, for equal
// rows, rows on a line, rows of one value, and no rows.
func TestProjectDegenerate(t *testing.T) {
	for name, c := range map[string]struct {
		rows   [][]float32
		shares string
	}{
		"equal": {[][]float32{{1, 2, 3}, {1, 2, 3}}, "0.00 0.00"},
		"line":  {[][]float32{{1, 1, 0}, {2, 2, 0}, {5, 5, 0}}, "1.00 0.00"},
		"one":   {[][]float32{{1}, {2}, {4}}, "1.00 0.00"},
		"none":  {nil, "0.00 0.00"},
	} {
		points, shares := Project(c.rows)
		if got := fmt.Sprintf("%.2f %.2f", shares[0], shares[1]); got != c.shares || len(points) != len(c.rows) {
			t.Errorf("%s: shares %s, want %s; %d points", name, got, c.shares, len(points))
		}
		for _, p := range points {
			if math.IsNaN(p[0]) || math.IsNaN(p[1]) {
				t.Errorf("%s: point %v", name, p)
			}
		}
	}
}

// BenchmarkProject projects 2,000 rows of 1,280 values. A report shows at most 2,000 embeddings of a model, and an
// embedding of the model ESM-2 650M has 1,280 values.
func BenchmarkProject(b *testing.B) {
	random := rand.New(rand.NewPCG(3, 4))
	rows := make([][]float32, 2000)
	for i := range rows {
		rows[i] = make([]float32, 1280)
		for j := range rows[i] {
			rows[i][j] = float32(random.NormFloat64() / math.Sqrt(float64(j+1)))
		}
	}
	for b.Loop() {
		Project(rows)
	}
}

// TestLabels checks that the vertical axis of a histogram ends with a tick at the height of the highest bar if the bar
// has at most four records. No label of the horizontal axis may be cut off at the right edge.
func TestLabels(t *testing.T) {
	for highest := range 7 {
		var l Lengths
		for range highest + 1 {
			l.Add(1000, false)
		}
		l.Add(64, false)
		d := Histogram{Lengths: l}.draw()
		if last := d.Y[len(d.Y)-1].Text; highest < 4 && last != fmt.Sprint(highest+1) {
			t.Errorf("the last of the ticks for %d records is %s", highest+1, last)
		}
		for _, tick := range d.X {
			at, err := strconv.ParseFloat(tick.At, 64)
			const digit = 8 // largest width of a digit in pixels, in a font of 13 px
			if err != nil || at+digit*float64(len(tick.Text))/2 > float64(d.Width) {
				t.Errorf("the label %s at %s is cut at %d", tick.Text, tick.At, d.Width)
			}
		}
		if !slices.ContainsFunc(d.X, func(x tick) bool { return x.Text == "1,000" }) {
			t.Errorf("no label 1,000 among %v", d.X)
		}
	}
}
