// Command dist builds the files of a release. For each platform it builds an archive with the program, its manual page,
// its shell completions and the licences of all code in it, and for most platforms a Python wheel. It also writes
// SHA256SUMS. The same commit gives the same bytes with the same version of Go.
//
//	go run ./deploy/dist [-o FOLDER]
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// platform is one build of the program.
type platform struct {
	goos, goarch string
	static       bool   // linked statically, without CUDA, for a Linux without glibc
	wheel        string // platform tags of the Python wheel; "" for none
}

// platforms lists the builds of a release. The wheel's tag for macOS names version 12, the oldest that Go 1.26
// supports. The dynamically linked programs for Linux work with any version of glibc. Their wheels' tags name version
// 2.17, the oldest for which there is a tag on both architectures.
var platforms = []platform{
	{"linux", "amd64", false, "manylinux_2_17_x86_64.manylinux2014_x86_64"},
	{"linux", "amd64", true, ""},
	{"linux", "arm64", false, "manylinux_2_17_aarch64.manylinux2014_aarch64"},
	{"linux", "arm64", true, ""},
	{"darwin", "arm64", false, "macosx_12_0_arm64"},
	{"windows", "amd64", false, "win_amd64"},
}

// name returns the platform's part of a file name, such as linux-amd64-static.
func (p platform) name() string {
	name := p.goos + "-" + p.goarch
	if p.static {
		name += "-static"
	}
	return name
}

// program returns the file name of the program.
func (p platform) program() string {
	if p.goos == "windows" {
		return "embed.exe"
	}
	return "embed"
}

// entry is a file in an archive.
type entry struct {
	name    string // path with slashes
	content []byte
	mode    os.FileMode
}

// release contains the files that all archives of a release have in common.
type release struct {
	root    string // folder of the module
	version string // version of the program, without its commit
	date    time.Time
	common  []entry // manual page, completions and texts
}

func main() {
	log.SetFlags(0)
	out := flag.String("o", "dist", "the `FOLDER` for the files; one with an earlier release is replaced")
	flag.Parse()
	if err := run(*out); err != nil {
		log.Fatal("dist: ", err)
	}
}

func run(out string) error {
	if err := emptyFolder(out); err != nil {
		return err
	}
	r, err := newRelease()
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, p := range platforms {
		files, err := r.build(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name(), err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(out, f.name), f.content, 0o666); err != nil {
				return err
			}
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(f.content), f.name)
			log.Printf("%6.1f MB  %s", float64(len(f.content))/1e6, f.name)
		}
	}
	return os.WriteFile(filepath.Join(out, sumsName), []byte(sums.String()), 0o666)
}

// sumsName is the name of the file with the digests of all other files.
const sumsName = "SHA256SUMS"

// emptyFolder makes a folder that contains only an empty SHA256SUMS. It replaces a folder with an earlier release, and
// refuses a folder with other content.
func emptyFolder(out string) error {
	list, err := os.ReadDir(out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(out, sumsName)); err != nil && len(list) > 0 {
		return fmt.Errorf("%s holds files and no %s of an earlier release: remove it, or name another folder", out, sumsName)
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, sumsName), nil, 0o666) // lets the next run replace an incomplete release
}

// newRelease gathers the files that all archives contain. It builds the program for this machine, and runs it to get
// its version, the manual page and the completions.
func newRelease() (*release, error) {
	root, err := command("go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	r := &release{root: root}
	if r.date, err = date(root); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "dist")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	here := platform{goos: runtime.GOOS, goarch: runtime.GOARCH}
	program := filepath.Join(folder, here.program())
	if err := r.compile(here, program); err != nil {
		return nil, err
	}
	line, err := command(program, "version") // prints "embed VERSION[+COMMIT] GO PLATFORM"
	if err != nil {
		return nil, err
	}
	r.version, _, _ = strings.Cut(strings.Fields(line)[1], "+")
	for _, f := range []struct {
		name string
		args []string
	}{
		{"man/man1/embed.1", []string{"man"}},
		{"completions/embed.bash", []string{"completion", "bash"}},
		{"completions/_embed", []string{"completion", "zsh"}},
		{"completions/embed.fish", []string{"completion", "fish"}},
	} {
		text, err := command(program, f.args...)
		if err != nil {
			return nil, err
		}
		r.common = append(r.common, entry{f.name, []byte(text + "\n"), 0o644})
	}
	for _, name := range texts {
		if err := r.add(name); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// texts lists the files and folders of the repository that every archive contains: the documentation, the scripts for
// clusters that the documentation describes, and the recipes that the README names.
var texts = []string{"README.md", "LICENSE", "CHANGELOG.md", "docs", "deploy/slurm", "deploy/snakemake", "deploy/nextflow",
	"deploy/k8s/embed.yaml", "deploy/Dockerfile", "deploy/apptainer.def", "deploy/bioconda"}

// add adds to all archives a file of the repository, or all files in a folder of it.
func (r *release) add(name string) error {
	return filepath.WalkDir(filepath.Join(r.root, name), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(r.root, path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(content, []byte("#!")) {
			mode = 0o755
		}
		r.common = append(r.common, entry{filepath.ToSlash(name), content, mode})
		return nil
	})
}

// date returns the time that all files of a release get: SOURCE_DATE_EPOCH, or the time of the commit if this variable
// is not set.
func date(root string) (time.Time, error) {
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		var err error
		if seconds, err = command("git", "-C", root, "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, fmt.Errorf("%w; SOURCE_DATE_EPOCH gives the date where there is no git", err)
		}
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	return time.Unix(n, 0).UTC(), err
}

// compile builds the program for a platform and writes it to path.
func (r *release) compile(p platform, path string) error {
	args := []string{"build", "-trimpath", "-buildvcs=auto", "-ldflags", "-s -w", "-o", path}
	if p.static {
		args = append(args, "-tags", "static")
	}
	cmd := exec.Command("go", append(args, "./cmd/embed")...)
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.goos, "GOARCH="+p.goarch, "GOAMD64=v1", "GOARM64=v8.0")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// build returns the archive of a platform and, if the platform has one, its wheel.
func (r *release) build(p platform) ([]entry, error) {
	folder, err := os.MkdirTemp("", "dist")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, p.program())
	if err := r.compile(p, path); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	notices, err := licences(path)
	if err != nil {
		return nil, err
	}
	program := entry{p.program(), content, 0o755}
	third := entry{"THIRD-PARTY-LICENSES.txt", notices, 0o644}
	archive, err := r.archive(p, append([]entry{program, third}, r.common...))
	if err != nil || p.wheel == "" {
		return []entry{archive}, err
	}
	wheel, err := r.wheel(p, program, third)
	return []entry{archive, wheel}, err
}

// command runs a program and returns its output without the last newline.
func command(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
