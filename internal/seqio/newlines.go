package seqio

import "bytes"

// newlines replaces the line ends "\r\n" and "\r" by "\n" in a stream that is read in pieces.
type newlines struct {
	afterCR bool // the last byte of the previous piece was '\r'
}

// normalise replaces the line ends in p, the next piece of the stream, in place. It returns the new length of p.
func (l *newlines) normalise(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	if !l.afterCR && bytes.IndexByte(p, '\r') < 0 {
		return len(p)
	}
	rest := p
	if l.afterCR && rest[0] == '\n' {
		rest = rest[1:]
	}
	l.afterCR = false
	n := 0
	for {
		cr := bytes.IndexByte(rest, '\r')
		if cr < 0 {
			return n + copy(p[n:], rest)
		}
		n += copy(p[n:], rest[:cr])
		p[n] = '\n'
		n++
		rest = rest[cr+1:]
		if len(rest) == 0 {
			l.afterCR = true
			return n
		}
		if rest[0] == '\n' {
			rest = rest[1:]
		}
	}
}
