package main

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// wheel returns a Python wheel. It contains the program, which pip puts on the PATH, and the package seqembed, which
// reads the outputs of the program. The format is that of
// https://packaging.python.org/en/latest/specifications/binary-distribution-format/.
func (r *release) wheel(p platform, program, third entry) (entry, error) {
	name := "seqembed-" + r.version
	reader, err := os.ReadFile(filepath.Join(r.root, "deploy/python/seqembed/__init__.py"))
	if err != nil {
		return entry{}, err
	}
	licence, err := os.ReadFile(filepath.Join(r.root, "LICENSE"))
	if err != nil {
		return entry{}, err
	}
	info := name + ".dist-info/"
	files := []entry{
		{"seqembed/__init__.py", reader, 0o644},
		{name + ".data/scripts/" + program.name, program.content, 0o755},
		{info + "licenses/LICENSE", licence, 0o644},
		{info + "licenses/" + third.name, third.content, 0o644},
		{info + "METADATA", r.metadata(), 0o644},
		{info + "WHEEL", wheelTags(p), 0o644},
	}
	var record strings.Builder
	for _, f := range files {
		sum := sha256.Sum256(f.content)
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", f.name, base64.RawURLEncoding.EncodeToString(sum[:]), len(f.content))
	}
	fmt.Fprintf(&record, "%sRECORD,,\n", info)
	content, err := zipFile(append(files, entry{info + "RECORD", []byte(record.String()), 0o644}), r.date)
	return entry{name + "-py3-none-" + p.wheel + ".whl", content, 0o644}, err
}

// metadata returns the file METADATA of a wheel. NumPy and PyArrow are optional dependencies, so that the program can
// be installed without them.
func (r *release) metadata() []byte {
	return []byte(`Metadata-Version: 2.4
Name: seqembed
Version: ` + r.version + `
Summary: Embeddings of DNA and protein sequences with DNABERT-S and ESM-2, without PyTorch
License-Expression: Apache-2.0
License-File: LICENSE
License-File: THIRD-PARTY-LICENSES.txt
Requires-Python: >=3.8
Provides-Extra: numpy
Requires-Dist: numpy; extra == "numpy"
Provides-Extra: parquet
Requires-Dist: pyarrow; extra == "parquet"

The command embed turns FASTA and FASTQ files into embeddings. The package seqembed reads its outputs.
`)
}

// wheelTags returns the file WHEEL of a wheel. p.wheel may list several platforms, each of which becomes a tag.
func wheelTags(p platform) []byte {
	var b strings.Builder
	b.WriteString("Wheel-Version: 1.0\nGenerator: seqembed\nRoot-Is-Purelib: false\n")
	for tag := range strings.SplitSeq(p.wheel, ".") {
		fmt.Fprintf(&b, "Tag: py3-none-%s\n", tag)
	}
	return []byte(b.String())
}
