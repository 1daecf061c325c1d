package store

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lengths in bytes that keep every file name, with suffixes and the marks of a temporary file, under the 255 bytes of
// common file systems.
const (
	maxBaseName  = 160
	maxModelName = 48
)

// EscapeName turns any text into the name of one file or folder: it holds no separator, is never empty, "." or "..",
// never starts with a dot and has at most 160 bytes. Slashes, backslashes, '%', a leading dot and everything that does
// not print become %XX, byte by byte, as in URLs; printable letters of any script are kept. Different texts get
// different names; a text too long for that is cut and ends in '~' and 16 digits of its SHA-256.
func EscapeName(text string) string { return escape(text, maxBaseName) }

func escape(text string, limit int) string {
	if text == "" {
		return "%" // no other text gives it: a '%' is always followed by two digits
	}
	const digestDigits = 16
	var b strings.Builder
	cut := 0 // length of the longest prefix that leaves room for the digest and splits no character
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if keepInName(r, size) && (i > 0 || r != '.') {
			b.WriteString(text[i : i+size])
		} else {
			for _, c := range []byte(text[i : i+size]) {
				writePercent(&b, c)
			}
		}
		i += size
		if b.Len() <= limit-1-digestDigits {
			cut = b.Len()
		}
	}
	if b.Len() <= limit {
		return b.String()
	}
	sum := sha256.Sum256([]byte(text))
	return b.String()[:cut] + "~" + hex.EncodeToString(sum[:])[:digestDigits]
}

func keepInName(r rune, size int) bool {
	if r == utf8.RuneError && size == 1 {
		return false
	}
	return r != '/' && r != '\\' && r != '%' && unicode.IsPrint(r)
}

func writePercent(b *strings.Builder, c byte) {
	const digits = "0123456789ABCDEF"
	b.WriteByte('%')
	b.WriteByte(digits[c>>4])
	b.WriteByte(digits[c&15])
}

// ValidText returns s unchanged when it is UTF-8, and otherwise reads its bytes as Latin-1, the usual encoding of the
// headers that are not: every format here requires UTF-8, and readers refuse a file for one bad byte.
func ValidText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// oneLine returns s fit for a line of a text file: control characters and the line separators of Unicode, none of which
// an id should hold, become %XX.
func oneLine(s string) string {
	breaks := func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }
	if strings.IndexFunc(s, breaks) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !breaks(r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			writePercent(&b, c)
		}
	}
	return b.String()
}
