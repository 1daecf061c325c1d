package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/transformer"
)

const manUsage = `embed man prints the manual page of embed, made from the text of --help.

Usage:
  embed man

Example:
  embed man > ~/.local/share/man/man1/embed.1
`

// man is the command "embed man".
func man(_ context.Context, _ machine, args, environ []string, w, _ io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed man", pflag.ContinueOnError)
	_, helped, err := parseSubcommand(flags, manUsage, 0, args, environ, w)
	if err == nil && !helped {
		_, err = io.WriteString(w, manPage())
	}
	return exitCode(err, 0, 0), err
}

// manPage returns the manual page in roff, the markup of manual pages. The page has the contents of --help.
func manPage() string {
	var page strings.Builder
	name, text, _ := strings.Cut(usage, "\n")
	fmt.Fprintf(&page, ".TH EMBED 1 \"\" \"embed %s\"\n.SH NAME\nembed \\- %s\n", roff(release), roff(strings.TrimPrefix(name, "embed ")))
	fmt.Fprintf(&page, ".SH DESCRIPTION\n.nf\n%s.fi\n", roff(strings.TrimLeft(text, "\n")))
	page.WriteString(".SH OPTIONS\n")
	for _, g := range declare(&settings{}, transformer.Families) {
		fmt.Fprintf(&page, ".SS %s\n", roff(g.title))
		g.flags.VisitAll(func(f *pflag.Flag) {
			fmt.Fprintf(&page, ".TP\n.B %s\n%s\n", roff(strings.TrimSpace(synopsis(f))), roff(description(f)))
		})
	}
	fmt.Fprintf(&page, ".SH ENVIRONMENT AND EXIT STATUS\n.nf\n%s.fi\n", roff(strings.TrimLeft(footer, "\n")))
	return page.String()
}

// roff escapes backslashes, hyphens, and the characters that would begin a roff command at the start of a line.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
