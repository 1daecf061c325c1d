package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestBashCompletion checks that bash, with the script of embed completion, completes the last word of each command
// line to the listed words.
func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	workspace(t)
	write(t, "proteins.faa", ">a\nMKV\n")
	write(t, "my file.faa", ">a\nMKV\n")
	script := embed(t, "completion", "bash").wantCode(exitDone).stdout
	for line, want := range map[string]string{
		"embed --form":                  "--format",
		"embed --format sa":             "safetensors",
		"embed -format sa":              "safetensors",
		"embed --format = sa":           "safetensors", // readline splits --format=sa into these three words
		"embed --max-length =":          "",
		"embed -o x --esm-model esm2-1": "esm2-150m|esm2-15b",
		"embed --max-length ":           "",
		"embed --dna prot":              "proteins.faa",
		"embed -q prot":                 "proteins.faa",
		"embed my":                      "my file.faa",
		"embed -o my":                   "my file.faa",
		"embed --preset ":               "virnucpro",
		"embed pul":                     "pull",
		"embed -q pul":                  "",
	} {
		words := strings.Split(line, " ")
		cmd := exec.Command(bash, "-c", script+"\nCOMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)); _embed; IFS='|'; echo \"${COMPREPLY[*]}\"", "bash")
		cmd.Args = append(cmd.Args, words...)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q: %q, want %q (%v)", line, got, want, err)
		}
	}
}

// TestCompletionScripts checks that each script names every flag, and that every installed shell parses its script
// without a message.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range shells() {
		script := embed(t, "completion", shell).wantCode(exitDone).stdout
		for _, f := range completedFlags() {
			if !strings.Contains(script, f.Name) {
				t.Errorf("%s: --%s is missing", shell, f.Name)
			}
		}
		if path, err := exec.LookPath(shell); err == nil {
			cmd := exec.Command(path, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s", shell, err, out)
			}
		}
	}
}

// TestManualPage checks that the manual page describes every flag, and that groff, if it is installed, prints no
// warning about the page.
func TestManualPage(t *testing.T) {
	page := embed(t, "man").wantCode(exitDone).stdout
	for _, f := range completedFlags() {
		if !strings.Contains(page, roff("--"+f.Name)) {
			t.Errorf("--%s is missing", f.Name)
		}
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(groff, "-man", "-ww", "-Tutf8", "-K", "utf8")
	cmd.Stdin = strings.NewReader(page)
	var messages strings.Builder
	cmd.Stderr = &messages
	if out, err := cmd.Output(); err != nil || messages.Len() > 0 || !strings.Contains(string(out), "the same command continues") {
		t.Errorf("groff: %v\n%s", err, messages.String())
	}
}

// TestRoff checks that the function roff escapes text for a manual page, so that no line of the text becomes a groff
// command.
func TestRoff(t *testing.T) {
	if got, want := roff("a-b\n.SH x\n'c\\d"), "a\\-b\n\\&.SH x\n\\&'c\\ed"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
