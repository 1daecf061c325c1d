// Package htmlreport writes a page of figures, charts and tables as one HTML file. The file needs neither scripts nor a
// network, and all texts in it are escaped. The package does not depend on the subject of the charts.
package htmlreport

import (
	_ "embed"
	"html/template"
	"io"
)

// Page is the content of the HTML file. Texts must be valid UTF-8.
type Page struct {
	Title    string
	Outcome  string // one sentence
	Bad      bool   // whether the outcome is bad
	Facts    []Fact
	Figures  []Fact // key figures, which are printed large
	Sections []Section
	Tables   []Table
	Notes    []string
}

// Fact is a name and a value.
type Fact struct{ Name, Value string }

// Section is a group of charts.
type Section struct {
	Title, Text string
	Charts      []Chart
}

// Chart is a chart that can be drawn: an Areas, a Histogram or a Scatter.
type Chart interface{ draw() drawing }

// Table is a table with a title. Each row has a cell for each column.
type Table struct {
	Title, Text string
	Columns     []Column
	Rows        [][]string
	More        string // sentence about the rows that are left out
}

// Column is the head of a column in a table.
type Column struct {
	Name   string
	Number bool // the cells are aligned to the right
	Bar    bool // the cells are percentages, which are also drawn as bars
}

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"css":    func() template.CSS { return template.CSS(pageCSS) },
		"draw":   func(c Chart) drawing { return c.draw() },
		"column": func(t Table, i int) Column { return t.Columns[i] },
		"share":  share,
	}).Parse(pageHTML))
)

// Write writes the page.
func (p *Page) Write(w io.Writer) error { return page.Execute(w, p) }
