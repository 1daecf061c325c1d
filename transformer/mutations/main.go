// Command mutations checks that the tests of a clone tell the models from others: it copies the module to a folder of
// its own, breaks the copy in one place at a time and wants the tests to fail each time.
//
//	go run ./transformer/mutations [-run REGEXP] [-packages PATTERNS]
//
// A mutation that does not compile, or whose text is not in the source exactly once, is an error. It exits with 1 if a
// mutation survives.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	pattern := flag.String("run", "", "only mutations whose name matches")
	packages := flag.String("packages", "./transformer/...", "packages to test, separated by spaces")
	flag.Parse()
	survived, err := run(*pattern, strings.Fields(*packages))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(2)
	}
	if len(survived) > 0 {
		fmt.Fprintf(os.Stderr, "mutations: %d survived: %s\n", len(survived), strings.Join(survived, "; "))
		os.Exit(1)
	}
}

// run gives the names of the mutations that survived.
func run(pattern string, packages []string) (survived []string, err error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	parent, err := os.MkdirTemp("", "mutations-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(parent)
	clone := filepath.Join(parent, "clone") // alone in parent: there are no goldens beside it
	if err := copyTree(clone); err != nil {
		return nil, err
	}
	start := time.Now()
	if failed, output := test(clone, packages); len(failed) > 0 {
		return nil, fmt.Errorf("the tests fail without a mutation:\n%s", output)
	}
	fmt.Printf("no mutation: %s pass in %.1f s\n", strings.Join(packages, " "), time.Since(start).Seconds())

	count := 0
	for _, m := range mutations {
		if !wanted.MatchString(m.name) {
			continue
		}
		count++
		failed, err := m.try(clone, packages)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		verdict := "killed by " + strings.Join(failed, ", ")
		if len(failed) == 0 {
			verdict = "SURVIVED"
			survived = append(survived, m.name)
		}
		fmt.Printf("%s: %s\n", m.name, verdict)
	}
	if count == 0 {
		return nil, fmt.Errorf("no mutation's name matches %q", pattern)
	}
	fmt.Printf("%d of %d mutations killed\n", count-len(survived), count)
	return survived, nil
}

// try applies a mutation to the clone, runs the tests and takes it back.
func (m mutation) try(clone string, packages []string) (failed []string, err error) {
	path := filepath.Join(clone, filepath.FromSlash(m.file))
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return nil, fmt.Errorf("%s has the text to replace %d times, not once: %q", m.file, n, m.old)
	}
	mutated := strings.Replace(string(source), m.old, m.new, 1)
	if err := os.WriteFile(path, []byte(mutated), 0o644); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, source, 0o644)) }()
	if output, err := command(clone, "build", "./...").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the mutated source does not compile: %s", output)
	}
	failed, _ = test(clone, packages)
	return failed, nil
}

var failure = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// test runs the tests of packages, up to the first that fails, and gives the names of the tests that failed there, or
// else of the package.
func test(clone string, packages []string) (failed []string, output string) {
	for _, p := range packages {
		out, err := command(clone, "test", "-short", "-count=1", p).CombinedOutput()
		if err == nil {
			continue
		}
		for _, m := range failure.FindAllStringSubmatch(string(out), -1) {
			failed = append(failed, m[1])
		}
		if len(failed) == 0 {
			failed = []string{p}
		}
		return failed, string(out)
	}
	return nil, ""
}

// command is a go command in the clone, which finds nothing outside it.
func command(clone string, args ...string) *exec.Cmd {
	c := exec.Command("go", args...)
	c.Dir = clone
	c.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "EMBED_") // EMBED_SHARED names a folder with goldens
	}), "PWD="+clone)
	return c
}

// copyTree copies the module of the working folder, without folders whose names begin with a dot, which hold no source.
func copyTree(to string) error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	from := strings.TrimSpace(string(out))
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir() && (relative == "build" || strings.HasPrefix(entry.Name(), ".") && relative != "."):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case !entry.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}
