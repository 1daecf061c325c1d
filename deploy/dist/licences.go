package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// licences returns the licences and notices of all third-party modules in a program, and those of Go, because every
// program contains parts of Go's standard library.
func licences(program string) ([]byte, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "The program contains code of others, under these licences.\n")
	goroot, err := command("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	if err := addLicences(&b, "Go "+strings.TrimPrefix(runtime.Version(), "go"), goroot); err != nil {
		return nil, err
	}
	for _, m := range info.Deps {
		folder, err := command("go", "list", "-m", "-f", "{{.Dir}}", m.Path)
		if err != nil {
			return nil, err
		}
		if err := addLicences(&b, m.Path+" "+m.Version, folder); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// addLicences appends the licence files in folder, the folder of the module called name. It returns an error if there
// are none.
func addLicences(b *bytes.Buffer, name, folder string) error {
	list, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	found := false
	for _, f := range list {
		base := strings.ToUpper(strings.TrimSuffix(f.Name(), filepath.Ext(f.Name())))
		if f.IsDir() || !slices.ContainsFunc([]string{"LICENSE", "LICENCE", "UNLICENSE", "COPYING", "NOTICE", "PATENTS"}, func(kind string) bool { return strings.HasPrefix(base, kind) }) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "\n%s\n%s, %s\n\n%s", strings.Repeat("=", 100), name, f.Name(), bytes.TrimSpace(text))
		b.WriteString("\n")
		found = true
	}
	if !found {
		return fmt.Errorf("%s has no licence file", name)
	}
	return nil
}
