package store

import "path/filepath"

// ReportName is the name of the file in an output folder with the JSON report of the latest run.
const ReportName = "report.json"

// WriteReport replaces the file ReportName in folder dir, which must exist.
func WriteReport(dir string, content []byte) error {
	return replaceFile(osFS{}, filepath.Join(dir, ReportName), content)
}
