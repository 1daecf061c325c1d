package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"seqembed/internal/store"
)

var (
	crashTime = flag.Duration("crash.time", 1500*time.Millisecond, "time for which TestKilled kills runs")
	crashSeed = flag.Uint64("crash.seed", 0, "seed of TestKilled (default from the clock)")
)

// TestKilled kills runs of the program at random moments, by SIGKILL or SIGTERM, and repeats the command until a run
// ends by itself. One or two runs use the output folder at a time. After each kill, every output in the folder must be
// complete and have an entry in the manifest, and every output that the manifest calls finished must exist. At the end
// the folder must hold the same outputs, byte for byte, as the folder of a run that was never killed, and only a
// manifest besides.
//
// The flag -crash.seed determines the formats, the signals, and the log lines after which the signals are sent. It does
// not determine the order of goroutines.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("make crash takes longer, and without the race detector")
	}
	c := newCrashes(t, 0)
	c.writeInputs()
	for end := time.Now().Add(*crashTime); time.Now().Before(end); c.rounds++ {
		c.round(end)
	}
	t.Logf("%d rounds in %d configurations; runs by exit code as in a shell: %v", c.rounds, len(c.whole), c.codes)
}

// crashes is the state of TestKilled, and a part of the state of TestKilledInsideAFile.
type crashes struct {
	*testing.T
	rng    *rand.Rand
	whole  map[string]wholeRun // results of runs that are not killed, by the flags of the run
	rounds int
	codes  map[int]int
}

// newCrashes changes to a new folder and returns the state of a test that kills runs there. Tests with different values
// of stream get different random numbers from the same seed.
func newCrashes(t *testing.T, stream uint64) *crashes {
	workspace(t)
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -crash.seed %d", seed)
	return &crashes{T: t, rng: rand.New(rand.NewPCG(seed, stream)), whole: map[string]wholeRun{}, codes: map[int]int{}}
}

// wholeRun is the result of a run that is not killed.
type wholeRun struct {
	files map[string]string // contents of the outputs by file name
	lines int               // number of lines in the log of the run
}

// writeInputs writes FASTA files of DNA and of proteins. Some files need one batch, others many.
func (c *crashes) writeInputs() {
	letters := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[c.rng.IntN(len(alphabet))]
		}
		return string(b)
	}
	for i := range 12 {
		var dna, protein strings.Builder
		for r := range 1 + 3*i {
			fmt.Fprintf(&protein, ">p%d\n%s\n", r, letters("LAGVSERTIDPKQNFYMHWC", 8+c.rng.IntN(50)))
			if i%3 == 0 {
				fmt.Fprintf(&dna, ">d%d\n%s\n", r, letters("ACGT", 30+c.rng.IntN(100)))
			}
		}
		write(c, fmt.Sprintf("in/protein/%d/p%d.faa", i%2, i), protein.String())
		if i%3 == 0 {
			write(c, fmt.Sprintf("in/dna/d%d.fna", i), dna.String())
		}
	}
}

// configuration returns the arguments of a run, with random flags and a random folder of inputs.
func (c *crashes) configuration() []string {
	format := store.Formats()[c.rng.IntN(len(store.Formats()))]
	poolings := []string{"mean", "tokens", "max,residues"}
	switch format {
	case store.VirNucPro:
		poolings = poolings[:1]
	case store.Pt:
		poolings = []string{"mean", "mean,residues"}
	}
	flags := []string{"--format", string(format), "--pool", poolings[c.rng.IntN(len(poolings))]}
	inputs := []string{"in", "in", "in/dna", "in/protein"}[c.rng.IntN(4)]
	return append(flags, "--esm-model", tiny, "--dnabert-model", tinyDNA, "--esm-batch-size", "64", "--dnabert-batch-size", "256",
		"--part-records", []string{"0", "1", "5", "2048"}[c.rng.IntN(4)], "-v", inputs)
}

// round runs one command again and again until all its processes end by themselves. It sends signals to each run at a
// random moment. Runs that start after the time end get no signals. The first run of the test always gets signals, so
// that even a slow machine tests a kill.
func (c *crashes) round(end time.Time) {
	flags := c.configuration()
	whole, ok := c.whole[fmt.Sprint(flags)]
	if !ok {
		whole = c.undisturbed(flags)
		c.whole[fmt.Sprint(flags)] = whole
	}
	out := fmt.Sprint("out", c.rounds)
	tasks := 1 + c.rng.IntN(4)/3
	for killed := true; killed; {
		killed = c.run(append(flags, "-o", out), tasks, whole.lines, len(c.codes) == 0 || time.Now().Before(end))
		c.check(out, whole, killed)
		if c.Failed() {
			c.Fatalf("in %s, with %q", out, flags)
		}
	}
	again := embed(c.T, append(flags, "-o", out)...).wantCode(0)
	if strings.Contains(again.stdout, " -> ") {
		c.Errorf("complete, and computed again:\n%s", again.stdout)
	}
	if there, left := c.contents(out); len(there) != len(whole.files)+1 || left > 0 {
		c.Errorf("%q are there at the end", files(c, out))
	}
	os.RemoveAll(out)
}

// undisturbed runs a command without killing it, and returns the result.
func (c *crashes) undisturbed(flags []string) wholeRun {
	out := fmt.Sprint("whole", len(c.whole))
	r := embed(c.T, append(flags, "-o", out)...).wantCode(0)
	w := wholeRun{map[string]string{}, strings.Count(r.stderr, "\n")}
	w.files, _ = c.contents(out)
	delete(w.files, store.ManifestName)
	return w
}

// contents returns the contents of the files in an output folder by name, and the number of files that killed runs left
// behind. An output of format pt is a folder. The map has one text for this folder: each line is the SHA-256 and the
// name of a file in the folder. The manifest has the digest of this text.
func (c *crashes) contents(dir string) (list map[string]string, left int) {
	list = map[string]string{}
	for _, name := range files(c, dir) {
		content := c.read(dir, name)
		folder, file, inFolder := strings.Cut(name, ".pt/")
		switch {
		case slices.ContainsFunc(strings.Split(name, "/"), leftover.MatchString):
			left++
		case inFolder:
			list[folder+".pt"] += fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(content)), file)
		default:
			list[name] = content
		}
	}
	return list, left
}

func (c *crashes) read(dir, name string) string {
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		c.Error(err)
	}
	return string(content)
}

// run runs a command in several processes at the same time; tasks is the number of processes. If kill is set, each
// process gets one or two signals when its log reaches a random line. The parameter lines is the number of lines in the
// log of a run that is not killed. run reports whether any process ended with an exit code other than 0.
func (c *crashes) run(args []string, tasks, lines int, kill bool) (killed bool) {
	var wait sync.WaitGroup
	codes, logs := make([]int, tasks), make([]*signalingLog, tasks)
	for i := range tasks {
		cmd, log := child(c.T, nil, args...), &signalingLog{at: 1 + c.rng.IntN(lines+lines/4)}
		logs[i] = log
		signals := [][]syscall.Signal{{syscall.SIGKILL}, {syscall.SIGTERM}, {syscall.SIGTERM, syscall.SIGTERM}, {syscall.SIGTERM, syscall.SIGKILL}}
		log.signals, log.delay = signals[c.rng.IntN(len(signals))], time.Duration(c.rng.IntN(2000))*time.Microsecond
		if !kill {
			log.signals = nil
		}
		cmd.Stdout, cmd.Stderr = io.Discard, log
		log.process = cmd
		if err := cmd.Start(); err != nil {
			c.Fatal(err)
		}
		timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
		wait.Go(func() {
			codes[i] = ended(cmd)
			timer.Stop()
			// An interrupted run should end within 5 s. A busy machine gets twice the time.
			if took := time.Since(log.first); codes[i] == exitInterrupted && took > 10*time.Second {
				c.Errorf("an interrupted run has taken %v to end", took)
			}
		})
	}
	wait.Wait()
	for i, code := range codes {
		c.codes[code]++
		killed = killed || code != exitDone
		switch {
		case code == exitDone, code == exitInterrupted && logs[i].sent(syscall.SIGTERM):
		case code == 128+int(syscall.SIGKILL) && logs[i].sent(syscall.SIGKILL), code == 128+int(syscall.SIGTERM) && logs[i].sent(syscall.SIGTERM):
		default:
			c.Errorf("exit code %d after the signals %v:\n%s", code, logs[i].signals, &logs[i].text)
		}
	}
	return killed
}

// signalingLog is the log of a process. It sends signals to the process when the log has a given number of lines.
type signalingLog struct {
	process *exec.Cmd
	at      int // number of lines in the log at which the signals are sent
	signals []syscall.Signal
	delay   time.Duration // pause before each signal
	text    bytes.Buffer
	once    sync.Once
	first   time.Time // time at which the log had enough lines to send the signals
}

func (d *signalingLog) Write(p []byte) (int, error) {
	d.text.Write(p)
	if bytes.Count(d.text.Bytes(), []byte{'\n'}) >= d.at {
		d.once.Do(func() {
			d.first = time.Now()
			for _, s := range d.signals {
				time.Sleep(d.delay)
				_ = d.process.Process.Signal(s) // an error means that the process has ended
			}
		})
	}
	return len(p), nil
}

func (d *signalingLog) sent(s syscall.Signal) bool { return slices.Contains(d.signals, s) }

// leftover matches the names that a killed run may leave in the output folder: temporary files and folders, the file
// that reserves the folder for the run (.run-…), and the results of a part of an input (.parts).
var leftover = regexp.MustCompile(`^\.((.+\.tmp|run)-[0-9a-f]{16}(\.d)?|.+\.parts)$`)

// check compares an output folder with its manifest, and with whole, the result of a run that was not killed. If killed
// is set, the folder may lack some outputs.
func (c *crashes) check(out string, whole wholeRun, killed bool) {
	described, finished := c.manifest(out)
	there, _ := c.contents(out)
	for name, content := range there {
		want, ok := whole.files[name]
		switch {
		case name == store.ManifestName:
		case !ok:
			c.Errorf("%s is no output", name)
		case content != want:
			c.Errorf("%s is not whole", name)
		case !described[name]:
			c.Errorf("%s is not in the manifest", name)
		}
	}
	for name, sum := range finished {
		if got := sha256.Sum256([]byte(there[name])); hex.EncodeToString(got[:]) != sum {
			c.Errorf("%s is not as the manifest says", name)
		}
	}
	if !killed && (len(finished) != len(whole.files) || len(there) != len(whole.files)+1) {
		c.Errorf("%d outputs are finished, %q are there, want %d", len(finished), files(c, out), len(whole.files))
	}
}

// manifest returns the paths of the outputs that the manifest of a folder names, and the SHA-256 of the finished
// outputs by path.
func (c *crashes) manifest(out string) (described map[string]bool, finished map[string]string) {
	described, finished = map[string]bool{}, map[string]string{}
	text, err := os.ReadFile(filepath.Join(out, store.ManifestName))
	if err != nil && !os.IsNotExist(err) {
		c.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // a killed run may leave an incomplete last line
		}
		var entry struct {
			Outputs []struct {
				Path   string
				SHA256 string
			}
			Finished *time.Time
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			c.Errorf("the manifest: %v", err)
		}
		for _, o := range entry.Outputs {
			described[o.Path] = true
			if delete(finished, o.Path); entry.Finished != nil {
				finished[o.Path] = o.SHA256
			}
		}
	}
	return described, finished
}
