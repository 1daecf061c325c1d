package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"seqembed/internal/store"
	"seqembed/kernels"
)

// TestWhateverHappens: devices of several backends that break, run out of
// memory or do not open, bad files, and interruptions, in any combination:
// the run ends, every file is accounted for, and what is there is whole.
func TestWhateverHappens(t *testing.T) {
	runs := 120
	if testing.Short() {
		runs = 30
	}
	outcomes := map[string]int{}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { outcomes[whateverHappens(t, seed)]++ })
	}
	// What never happened was not tested.
	for _, kind := range []string{"all done", "some failed", "interrupted", "systemic", "no device"} {
		if outcomes[kind] == 0 && !t.Failed() && runs > 100 {
			t.Errorf("no run ended with %q: %v", kind, outcomes)
		}
	}
}

func whateverHappens(t *testing.T, seed uint64) (outcome string) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex // of rng, which the devices share
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	b := newBench(t)
	b.job.Devices = nil
	breaks := []int{0, 0, 100, 8}[draw(4)] // one batch of so many
	for i := range 1 + draw(4) {
		f := &fake{layers: 1, budget: 50 + draw(60), memory: []int{0, 48}[draw(2)]}
		f.fault = func(kernels.Batch) error {
			time.Sleep(time.Duration(draw(200)) * time.Microsecond)
			if breaks > 0 && draw(breaks) == 0 {
				return errBroken
			}
			return nil
		}
		d := f.device(fmt.Sprint("fake", i))
		d.Ahead, d.Backend = draw(3), fmt.Sprint("backend", draw(2))
		closed, late := draw(8) == 0, time.Duration(draw(2000))*time.Microsecond
		d.Open = func() (Embedder, error) {
			time.Sleep(late)
			if closed {
				return nil, errBroken
			}
			return f, nil
		}
		b.job.Devices = append(b.job.Devices, d)
	}
	inputs := map[string][]entryOf{}
	bad := map[string]bool{}
	for i := range 1 + draw(12) {
		name := fmt.Sprint("f", i)
		lengths := make([]int, 1+draw(60))
		for l := range lengths {
			lengths[l] = 1 + draw(40)
		}
		inputs[name] = randomRecords(seed*100+uint64(i), lengths...)
		content := fasta(inputs[name])
		if draw(10) == 0 {
			bad[name] = true
			content += ">bad\nM!\n"
			content = fasta(randomRecords(9, upTo(120)...)) + content // planning sees nothing wrong
			content = strings.ReplaceAll(content, ">bad\n", fmt.Sprintf(">bad%d\n", i))
		}
		b.add(name+".faa", content)
	}
	if draw(4) == 0 {
		inputs["stdin"] = randomRecords(seed, upTo(30)...)
		b.planStdin(fasta(inputs["stdin"]))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if draw(4) == 0 {
		time.AfterFunc(time.Duration(draw(15000))*time.Microsecond, cancel)
	}
	s, err := b.runWithin(ctx, 20*time.Second)
	settled := len(s.Files) + len(s.Failed)
	switch {
	case errors.Is(err, ErrInterrupted):
		outcome = "interrupted"
	case errors.Is(err, ErrSystemic):
		outcome = "systemic"
	case err != nil && strings.HasPrefix(err.Error(), "no device is left"):
		outcome = "no device"
	case err != nil:
		t.Errorf("Run: %v", err)
	case len(s.Failed) > 0:
		outcome = "some failed"
	default:
		outcome = "all done"
	}
	if err == nil && settled != len(inputs) || err != nil && settled > len(inputs) {
		t.Errorf("%d files finished and %d failed of %d: %v", len(s.Files), len(s.Failed), len(inputs), err)
	}
	if breaks == 0 {
		for _, f := range s.Failed {
			if name := strings.TrimSuffix(filepath.Base(f.Path), ".faa"); !bad[name] && (f.Type != "device" || name != "-") {
				t.Errorf("%s failed: %v", f.Path, f.Err)
			}
		}
	}
	var finished []string
	for _, f := range s.Files {
		name := strings.TrimSuffix(filepath.Base(f.Path), ".faa")
		if name == "-" {
			name = "stdin"
		}
		if bad[name] {
			t.Errorf("%s finished", f.Path)
			continue
		}
		finished = append(finished, name)
		b.check(name, inputs[name])
	}
	if len(finished) > 0 {
		b.wantNames(outputsOf(finished...)...)
	} else if names := b.names(); len(names) > 1 || len(names) == 1 && names[0] != store.ManifestName {
		t.Errorf("nothing is finished, and there is %q", names)
	}
	return outcome
}
