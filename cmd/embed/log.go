package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// newLog returns the log that the settings select, which writes to w. If colored is set and the format is text, the
// levels of warnings and errors have colors.
func newLog(s *settings, w io.Writer, colored bool) (*slog.Logger, error) {
	level := slog.LevelInfo
	switch {
	case s.quiet && s.verbose:
		return nil, usagef("--quiet and --verbose exclude each other")
	case s.quiet:
		level = slog.LevelError
	case s.verbose:
		level = slog.LevelDebug
	}
	switch s.logFormat {
	case "text":
		return slog.New(newTextHandler(w, level, colored)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), nil
	}
	return nil, usagef("--log-format: %q is neither text nor json", s.logFormat)
}

// textHandler writes lines for people: time, level and unquoted message, then the attributes in the form of
// slog.TextHandler. TextHandler alone would quote the message.
type textHandler struct {
	slog.Handler // a slog.TextHandler that writes only the attributes, to buf

	mu  *sync.Mutex // guards buf and w, which the handlers returned by WithAttrs and WithGroup share
	buf *bytes.Buffer
	w   io.Writer

	colored bool
}

func newTextHandler(w io.Writer, level slog.Level, colored bool) textHandler {
	buf := new(bytes.Buffer)
	attributes := slog.NewTextHandler(buf, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	return textHandler{Handler: attributes, mu: new(sync.Mutex), buf: buf, w: w, colored: colored}
}

// Handle writes one record as one line.
func (h textHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Reset()
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	line := fmt.Sprintf("%s %s %s  %s", r.Time.Format("2006-01-02 15:04:05"), h.level(r.Level), plain(r.Message), bytes.TrimSpace(h.buf.Bytes()))
	_, err := io.WriteString(h.w, strings.TrimRight(line, " ")+"\n")
	return err
}

// level returns the name of a level in five columns. With colors, warnings are yellow and errors are red.
func (h textHandler) level(l slog.Level) string {
	name := fmt.Sprintf("%-5s", l)
	switch {
	case !h.colored || l < slog.LevelWarn:
		return name
	case l < slog.LevelError:
		return "\x1b[33m" + name + "\x1b[0m"
	}
	return "\x1b[31m" + name + "\x1b[0m"
}

// WithAttrs returns a handler that adds attributes to every line.
func (h textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

// WithGroup returns a handler that puts name before the names of later attributes.
func (h textHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// oneLine returns the message of an error as one line that is safe for a terminal.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	return plain(strings.Join(lines, "; "))
}

// plain escapes characters that do not print, because file names and headers may contain escape sequences of a
// terminal.
func plain(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
