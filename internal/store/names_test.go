package store

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscapeName(t *testing.T) {
	for text, want := range map[string]string{
		"sampleA":          "sampleA",
		"my sample (2).v1": "my sample (2).v1",
		"Probe-Ä_蛋白":       "Probe-Ä_蛋白",
		"":                 "%",
		".":                "%2E",
		"..":               "%2E.",
		".hidden":          "%2Ehidden",
		"../../etc/passwd": "%2E.%2F..%2Fetc%2Fpasswd",
		`C:\x`:             "C:%5Cx",
		"50%":              "50%25",
		"a\x00b\nc":        "a%00b%0Ac",
		"\xff\xfe":         "%FF%FE",
		"left\u202eright":  "left%E2%80%AEright",
	} {
		if got := EscapeName(text); got != want {
			t.Errorf("EscapeName(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestEscapeNameShortensLongNames(t *testing.T) {
	seen := make(map[string]string)
	for _, text := range []string{
		strings.Repeat("a", 160), strings.Repeat("a", 161), strings.Repeat("a", 162), strings.Repeat("a", 161) + "b",
		strings.Repeat("é", 200), strings.Repeat("/", 100), strings.Repeat("/", 101),
	} {
		name := EscapeName(text)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q are both called %q", text, other, name)
		}
		seen[name] = text
		if len(name) > maxBaseName || !utf8.ValidString(name) {
			t.Errorf("%q has %d bytes", name, len(name))
		}
	}
	if name := EscapeName(strings.Repeat("a", 160)); strings.Contains(name, "~") {
		t.Errorf("a name of the longest length became %q", name)
	}
}

// TestLongestNamesFitTheFileSystem checks that outputs whose names have the maximum length can be written, although
// their temporary files have even longer names.
func TestLongestNamesFitTheFileSystem(t *testing.T) {
	for name, s := range everySpec(t) {
		s.Base, s.Model = strings.Repeat("/", 500), strings.Repeat("m/", 200)
		if _, err := s.validate(); err != nil {
			t.Fatal(name)
		}
		writeAll(t, s, makeRows(s, 2))
	}
}

func FuzzEscapeName(f *testing.F) {
	for _, id := range awkwardIDs {
		f.Add(id[:min(len(id), 300)]) // longer texts would only make the fuzzer slow
	}
	f.Add("\xc3\x28 \u2028 \u200b/.")
	f.Add("%01 \x01 %25 %2501 %C2%85 \u0085 %C2\u0085 %E2%80%A9 %2525%7F %25\x7f %7f %2F")
	f.Fuzz(func(t *testing.T, text string) {
		name := EscapeName(text)
		if name == "" || len(name) > maxBaseName || name[0] == '.' || !utf8.ValidString(name) {
			t.Errorf("EscapeName(%q) = %q", text, name)
		}
		if !filepath.IsLocal(name) || filepath.Base(name) != name || strings.ContainsAny(name, "/\\\x00\n\r") {
			t.Errorf("EscapeName(%q) = %q, which is not the name of one file", text, name)
		}
		if plain, err := url.PathUnescape(name); text != "" && !strings.Contains(name, "~") && (err != nil || plain != text) {
			t.Errorf("EscapeName(%q) = %q, which means %q", text, name, plain)
		}
		for _, format := range Formats() {
			s := Spec{Dir: "out", Base: text, Model: text, Format: format, Columns: columnsOf([]int{1, 2}, Mean, Max, Residues)}
			for _, path := range s.Paths() {
				if filepath.Dir(path) != "out" || len(filepath.Base(path)) > 255 {
					t.Errorf("base %q gives %q", text, path)
				}
			}
		}
		if line := oneLine(ValidText(text)); strings.ContainsAny(line, "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029") || !utf8.ValidString(line) {
			t.Errorf("%q as a line is %q", text, line)
		} else if back := ofOneLine(line); back != ValidText(text) {
			t.Errorf("%q as a line is %q, which means %q", text, line, back)
		}
	})
}

func TestTextThatIsNotUTF8IsReadAsLatin1(t *testing.T) {
	if got, want := ValidText("M\xfcller 5\xb5"), "Müller 5µ"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := ValidText("Müller"); got != "Müller" {
		t.Errorf("UTF-8 became %q", got)
	}
	s := spec(t, Parquet, 33)
	rows := makeRows(s, 1)
	rows[0].ID, rows[0].Description = "id\xe9", "caf\xe9"
	table := readParquet(t, writeAll(t, s, rows)[0].Path)
	if id, description := table.values["id"][0][0].String(), table.values["description"][0][0].String(); id != "idé" || description != "café" {
		t.Errorf("%q, %q", id, description)
	}
}
