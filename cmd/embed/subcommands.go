package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/transformer"
)

// subcommand is a command that the first argument names, such as devices in "embed devices".
type subcommand struct {
	name      string
	run       func(ctx context.Context, m machine, args, environ []string, stdout, stderr io.Writer) (code int, err error)
	continues bool // whether the same command continues after an interruption; otherwise it starts over
}

// subcommands lists all subcommands.
func subcommands() []subcommand {
	return []subcommand{
		{"devices", devices, false},
		{"inspect", inspect, false},
		{"convert", convert, false},
		{"merge", merge, true},
		{"models", models, false},
		{"profile", profile, false},
		{"pull", pull, true},
		{"translate", translateCommand, false},
		{"verify", verify, false},
		{"completion", completion, false},
		{"man", man, false},
		{"help", help, false},
		{"version", showVersion, false},
	}
}

// subcommandNames lists the names of all subcommands.
func subcommandNames() (names []string) {
	for _, c := range subcommands() {
		names = append(names, c.name)
	}
	return names
}

// findSubcommand returns the subcommand that the arguments begin with.
func findSubcommand(args []string) (c subcommand, ok bool) {
	i := slices.IndexFunc(subcommands(), func(c subcommand) bool { return len(args) > 0 && c.name == args[0] })
	if i < 0 {
		return c, false
	}
	return subcommands()[i], true
}

// parseSubcommand parses the flags of a subcommand, which may take up to n arguments, and returns the arguments. If the
// user has asked for help, parseSubcommand prints usage and sets helped.
func parseSubcommand(flags *pflag.FlagSet, usage string, n int, args, environ []string, w io.Writer) (rest []string, helped bool, err error) {
	flags.BoolVarP(&helped, "help", "h", false, "")
	if err := parseFlags(flags, args, environ); err != nil {
		return nil, false, fmt.Errorf("%s: %w", flags.Name(), err)
	}
	if helped {
		_, err := io.WriteString(w, usage)
		return nil, true, err
	}
	if flags.NArg() > n {
		return nil, false, usagef("%s: %q is an argument too many; an input whose name is that of a subcommand is given as ./%s",
			flags.Name(), flags.Arg(n), strings.TrimPrefix(flags.Name(), "embed "))
	}
	return flags.Args(), false, nil
}

const helpUsage = `embed help prints the help of embed, or of a subcommand.

Usage:
  embed help [SUBCOMMAND]
`

// help is the command "embed help".
func help(ctx context.Context, m machine, args, environ []string, w, stderr io.Writer) (code int, err error) {
	rest, helped, err := parseSubcommand(pflag.NewFlagSet("embed help", pflag.ContinueOnError), helpUsage, 1, args, environ, w)
	switch {
	case err != nil || helped:
		return exitCode(err, 0, 0), err
	case len(rest) == 0:
		printHelp(w, declare(&settings{}, transformer.Families))
		return exitDone, nil
	}
	c, ok := findSubcommand(rest)
	if !ok {
		return exitUsage, usagef("embed help: there is no subcommand %q%s", rest[0], didYouMean(rest[0], "embed ", subcommandNames()))
	}
	return c.run(ctx, m, []string{"--help"}, nil, w, stderr)
}

const versionUsage = `embed version prints the version, the commit of the build, and the version of Go.

Usage:
  embed version
`

// showVersion is the command "embed version".
func showVersion(_ context.Context, _ machine, args, environ []string, w, _ io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed version", pflag.ContinueOnError)
	_, helped, err := parseSubcommand(flags, versionUsage, 0, args, environ, w)
	if err == nil && !helped {
		_, err = io.WriteString(w, versionLine()+"\n")
	}
	return exitCode(err, 0, 0), err
}
