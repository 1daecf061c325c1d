package store

import "path/filepath"

// ReportName is the name of the report of the latest run in an output folder.
const ReportName = "report.json"

// WriteReport replaces the report in folder dir, which must exist.
func WriteReport(dir string, content []byte) error {
	return replaceFile(osFS{}, filepath.Join(dir, ReportName), content)
}
