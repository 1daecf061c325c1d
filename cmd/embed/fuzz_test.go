package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// FuzzCommandLine checks that any arguments and environment variables are either accepted or rejected with a usage
// error of one line, without text of the flag library or of strconv. Parsing them a second time must give the same
// result.
func FuzzCommandLine(f *testing.F) {
	for _, c := range [][2]string{
		{"-o\x00out\x00p.faa", "EMBED_GPUS=none"}, {"-gpus\x000,1\x00-esm-batch-size=4\x00--\x00-x", ""}, {"--dna\x00a\x00b\x00--protein=c\x00d", "EMBED_DNA=x"},
		{"-output\x00x", "EMBED_FORCE=maybe"}, {"--layers=-1,0\x00--windows\x00--long\x00window\x00--overlap\x003", "EMBED_LAYERS=,"}, {"-\xff", "EMBED_"}, {"-=", "=\x00EMBED"},
		{"-qv\x00-qx\x00-o", "EMBED_THREADS="}, {"--max-length\x0099999999999999999999", "EMBED_\xff=1"}, {"--gpus=,", "EMBED_ESM_MODEL=\x00EMBED_XYZ=1"},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, line, variables string) {
		args, environ := strings.Split(line, "\x00"), strings.Split(variables, "\x00")
		began := time.Now()
		check := func() error {
			s, groups, err := parse(args, environ)
			if err != nil {
				return err
			}
			unknownVariables(groups, environ)
			if len(s.dna)+len(s.protein)+len(s.inputs) > 2*len(args)+len(environ) {
				t.Errorf("%q gives %d inputs", args, len(s.dna)+len(s.protein)+len(s.inputs))
			}
			return (&command{settings: s}).check()
		}
		err := check()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%d bytes take %v", len(line)+len(variables), took)
		}
		if err == nil {
			if again := check(); again != nil {
				t.Errorf("the second time: %v", again)
			}
			return
		}
		var usage *usageError
		if !errors.As(err, &usage) || exitCode(err, 0, 0) != exitUsage {
			t.Errorf("%v is no usage error", err)
		}
		var text strings.Builder
		printError(&text, err)
		for _, not := range []string{"strconv", "pflag", "invalid syntax"} {
			if strings.Contains(text.String(), not) && !strings.Contains(line+variables, not) {
				t.Errorf("%q shows %s", text.String(), not)
			}
		}
		if strings.Count(text.String(), "\n") != 1 || len(text.String()) > 1000+8*len(line+variables) {
			t.Errorf("%q", text.String())
		}
		if again := check(); again == nil || again.Error() != err.Error() {
			t.Errorf("the second time: %v, the first time: %v", again, err)
		}
	})
}
