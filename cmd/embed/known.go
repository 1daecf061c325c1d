package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"seqembed/transformer"
)

const modelsUsage = `embed models lists the models with a short name: their parameters without heads, their licence, and the
local cache that they are in, Hugging Face's or fair-esm's, with the size of their files.

Usage:
  embed models

Any other model of a supported family works by its hub id, its folder or its file. embed pull MODEL downloads
a model, and so does a run that needs it.
`

// models is the command "embed models".
func models(_ context.Context, _ machine, args, environ []string, w, _ io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed models", pflag.ContinueOnError)
	if _, helped, err := parseSubcommand(flags, modelsUsage, 0, args, environ, w); err != nil || helped {
		return exitCode(err, 0, 0), err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tFAMILY\tPARAMETERS\tLICENCE\tHUB ID\tON DISK\tCACHED IN")
	for _, f := range transformer.Families {
		for _, p := range f.Published {
			if p.Hub == "" {
				continue
			}
			config, _ := transformer.Families.Config(p.Name) // never fails for a published model
			path, err := transformer.Families.Cached(p)
			size := "-"
			switch {
			case err != nil:
				path = oneLine(err)
			case path == "":
				path = "no"
			default:
				size = megabytes(diskSize(path))
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, f.Name, millions(config.Parameters()), f.Licence, p.Hub, size, path)
		}
	}
	err = table.Flush()
	return exitCode(err, 0, 0), err
}

// millions formats 7,400,000 as 7.4 M and 15,000,000,000 as 15000 M.
func millions(n int64) string {
	if m := float64(n) / 1e6; m < 100 {
		return fmt.Sprintf("%.1f M", m)
	}
	return fmt.Sprintf("%d M", (n+5e5)/1e6)
}

// megabytes formats a number of bytes in megabytes.
func megabytes(bytes int64) string { return fmt.Sprintf("%s MB", grouped((bytes+5e5)/1e6)) }

// diskSize returns the size in bytes of a file, or of all files in a folder. It follows links to files.
func diskSize(path string) (size int64) {
	_ = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a folder that cannot be listed counts as empty
		}
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size
}
