package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"seqembed/internal/store"
)

const (
	largeRecords = 1500                // records in the file, all different: equal records are computed once
	largeBatch   = 256                 // tokens in a batch
	spanRecords  = 4 * largeBatch / 32 // most records packed together, in 4 batches; a record has at least 32 tokens
	mostInMemory = 5 * spanRecords     // most records in memory at a time
	largePart    = 2 * mostInMemory    // value of --part-records
)

// TestKilledInsideAFile kills runs over one large file at random moments, by SIGKILL or SIGTERM. After SIGKILL, the
// next run may compute at most largePart records again. After a run that SIGTERM has ended with the exit code for an
// interruption, the next run may compute at most spanRecords records again. At the end the output folder must hold the
// same outputs, byte for byte, as the folder of a run that was never killed, and only a manifest besides.
func TestKilledInsideAFile(t *testing.T) {
	if testing.Short() {
		t.Skip("make crash takes longer, and without the race detector")
	}
	l := &largeFile{crashes: newCrashes(t, 1)}
	var text strings.Builder
	for i := range largeRecords {
		fmt.Fprintf(&text, ">p%d\n", i)
		for range 30 + l.rng.IntN(20) {
			text.WriteByte("LAGVSERTIDPKQNFYMHWC"[l.rng.IntN(20)])
		}
		text.WriteByte('\n')
	}
	write(t, "large.faa", text.String())
	for end := time.Now().Add(*crashTime); time.Now().Before(end); l.rounds++ {
		l.round(end)
	}
	if l.kills+l.terms == 0 {
		t.Error("no run was killed")
	}
	t.Logf("%d rounds; runs by exit code as in a shell: %v; signals: %d SIGKILL, %d SIGTERM", l.rounds, l.codes, l.kills, l.terms)
	t.Logf("records that were computed again: at most %d after a SIGKILL, %d after a SIGTERM; %.1f in the mean",
		l.mostKilled, l.mostEnded, float64(l.repeated)/float64(max(1, l.kills+l.terms)))
}

// largeFile is the state of TestKilledInsideAFile.
type largeFile struct {
	*crashes
	kills, terms          int
	mostKilled, mostEnded int // largest number of records computed again after a SIGKILL, and after a SIGTERM
	repeated              int
}

// large is the result of a run over the large file.
type large struct {
	code     int
	log      *signalingLog
	computed int
	restored int // number of records taken from earlier runs; -1 if the log does not tell
}

var (
	computedPattern = regexp.MustCompile(` batch .* sequences=([0-9]+) `)
	restoredPattern = regexp.MustCompile(` continuing inside a file: .* records=([0-9]+)`)
)

// round runs one command again and again until a run ends by itself. It sends a signal to each run at a random moment.
// Runs that start after the time end get no signal, except the first run of the test, so that even a slow machine tests
// a kill.
func (l *largeFile) round(end time.Time) {
	format := store.Formats()[l.rng.IntN(len(store.Formats()))]
	pooling := []string{"mean", "mean,residues"}[l.rng.IntN(2)]
	if format == store.VirNucPro {
		pooling = "mean"
	}
	flags := []string{"--format", string(format), "--pool", pooling, "--esm-model", tiny, "--esm-batch-size", strconv.Itoa(largeBatch),
		"--part-records", strconv.Itoa(largePart), "--threads", "1", "-v", "large.faa"}
	whole, ok := l.whole[fmt.Sprint(flags)]
	if !ok {
		whole = l.undisturbed(flags)
		l.whole[fmt.Sprint(flags)] = whole
	}
	out := fmt.Sprint("out", l.rounds)
	reached := 0 // number of records that have been computed so far
	for previous := (*large)(nil); ; {
		r := l.run(append(flags, "-o", out), len(l.codes) == 0 || time.Now().Before(end))
		l.check(out, whole, r.code != exitDone)
		if r.restored >= 0 {
			if previous != nil {
				l.compare(previous, reached-r.restored)
			}
			reached = r.restored + r.computed
			previous = r
		}
		if l.Failed() {
			l.Fatalf("in %s, with %q:\n%s", out, flags, &r.log.text)
		}
		if r.code == exitDone {
			break
		}
	}
	if there, left := l.contents(out); len(there) != len(whole.files)+1 || left > 0 {
		l.Errorf("%q are there at the end", files(l, out))
	}
	os.RemoveAll(out)
}

// compare checks that a run did not compute too many records a second time. The argument again is the number of these
// records, and the argument ended is the result of the run before.
func (l *largeFile) compare(ended *large, again int) {
	l.repeated += max(0, again)
	switch {
	case again < -spanRecords: // the log of a killed run may lack its last batches, of at most spanRecords records
		l.Errorf("a run has continued %d records behind the end of the one before it", -again)
	case ended.code == exitInterrupted:
		if l.mostEnded = max(l.mostEnded, again); again > spanRecords {
			l.Errorf("%d records were computed again after SIGTERM, a span has %d", again, spanRecords)
		}
	default:
		if l.mostKilled = max(l.mostKilled, again); again > largePart {
			l.Errorf("%d records were computed again, at most %d may be", again, largePart)
		}
	}
}

// run runs a command until the process ends. If kill is set, run sends a signal to the process when its log reaches a
// random line.
func (l *largeFile) run(args []string, kill bool) *large {
	cmd := child(l.T, nil, args...)
	log := &signalingLog{process: cmd, at: 1 + l.rng.IntN(60), delay: time.Duration(l.rng.IntN(5000)) * time.Microsecond}
	if kill {
		signals := [][]syscall.Signal{{syscall.SIGKILL}, {syscall.SIGKILL}, {syscall.SIGKILL}, {syscall.SIGTERM}}
		log.signals = signals[l.rng.IntN(len(signals))]
	}
	cmd.Stdout, cmd.Stderr = io.Discard, log
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	r := &large{code: ended(cmd), log: log, restored: -1}
	l.codes[r.code]++
	switch {
	case r.code == exitDone:
	case r.code == 128+int(syscall.SIGKILL) && log.sent(syscall.SIGKILL):
		l.kills++
	case (r.code == exitInterrupted || r.code == 128+int(syscall.SIGTERM)) && log.sent(syscall.SIGTERM):
		l.terms++
	default:
		l.Errorf("exit code %d after the signals %v:\n%s", r.code, log.signals, &log.text)
	}
	for line := range strings.Lines(log.text.String()) {
		if m := computedPattern.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			r.computed, r.restored = r.computed+n, max(0, r.restored)
		}
		if m := restoredPattern.FindStringSubmatch(line); m != nil {
			r.restored, _ = strconv.Atoi(m[1])
		}
		if strings.Contains(line, "were dropped") {
			l.Errorf("parts are not used: %s", line)
		}
	}
	if r.code == exitDone && r.restored < 0 {
		r.restored = largeRecords // the output was complete already, so that the log names no records
	}
	return r
}
