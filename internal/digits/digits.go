// Package digits formats integers with thousands separators.
package digits

import "strconv"

// Group formats 1234567 as 1,234,567.
func Group(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
