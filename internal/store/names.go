package store

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Maximum lengths in bytes of the two parts of a file name, the escaped names of the input and of the model. With these
// limits all file names of an output, even those of temporary files, have at most 255 bytes, as common file systems
// require. Names of shards may be longer.
const (
	maxBaseName  = 160
	maxModelName = 48
)

// EscapeName converts any text to the name of one file or folder. The result contains no separator, is never empty, "."
// or "..", never begins with a dot and has at most 160 bytes. Slashes, backslashes, '%', a leading dot, all
// non-printable characters and invalid UTF-8 become %XX, byte by byte, as in URLs; other characters of any script are
// kept. Different texts have different names: a text that is too long is cut and ends in '~' and 16 digits of its
// SHA-256.
func EscapeName(text string) string { return escape(text, maxBaseName) }

func escape(text string, limit int) string {
	if text == "" {
		return "%" // no other text has this name: in other names two hexadecimal digits follow a '%'
	}
	const digestDigits = 16
	var b strings.Builder
	cut := 0 // length of the longest prefix that leaves room for the digest and does not split a character
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

// ValidText returns s if it is UTF-8. Otherwise it decodes the bytes as Latin-1, the usual encoding of headers that are
// not UTF-8. All formats of this package require UTF-8, and some readers refuse a whole file for one invalid byte.
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

// lineEscape matches the escape %XX of a character that oneLine replaces. It also matches such an escape that was
// itself escaped, once or several times, to %25XX, %2525XX and so on.
var lineEscape = regexp.MustCompile("%((?:25)*)(" + strings.Join([]string{"[01][0-9A-F]", "7F", "C2%[89][0-9A-F]", "E2%80%A[89]"}, "|") + ")")

// oneLine returns s with control characters and Unicode line separators, which no id should contain, replaced by %XX,
// so that it fits on one line of a text file. Different texts stay different: an escape %XX of such a character in s
// itself becomes %25XX.
func oneLine(s string) string {
	breaks := func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }
	if strings.Contains(s, "%") {
		s = lineEscape.ReplaceAllString(s, "%25$1$2")
	}
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

// ofOneLine is the inverse of oneLine.
func ofOneLine(line string) string {
	if !strings.Contains(line, "%") {
		return line
	}
	return lineEscape.ReplaceAllStringFunc(line, func(escape string) string {
		if rest, literal := strings.CutPrefix(escape, "%25"); literal {
			return "%" + rest
		}
		text, _ := url.PathUnescape(escape) // every match is a valid escape
		return text
	})
}
