package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"seqembed/internal/monitor"
	"seqembed/internal/seqio"
	"seqembed/pool"
	"seqembed/transformer"
	"seqembed/weights"
	"seqembed/weights/hub"
)

const pullUsage = `embed pull downloads a model from the Hugging Face hub into the local cache, and prints the folder of its files.
A download that was interrupted continues; files that are there are not fetched again.

Usage:
  embed pull [flags] MODEL[@REVISION]

MODEL is a short name such as esm2-650m, or ORG/NAME. REVISION is a branch, a tag or a commit.
HF_HOME or HF_HUB_CACHE says where the cache is, HF_TOKEN is for models that need an account, HF_ENDPOINT is
the address of another hub. A run of embed downloads a model that it needs in the same way.

Flags:
  -q, --quiet   errors only
  -h, --help    this page
`

// pull is the command "embed pull".
func pull(ctx context.Context, _ machine, args, environ []string, stdout, stderr io.Writer) (code int, err error) {
	s := &settings{logFormat: "text"}
	flags := pflag.NewFlagSet("embed pull", pflag.ContinueOnError)
	flags.BoolVarP(&s.quiet, "quiet", "q", false, "")
	rest, helped, err := parseSubcommand(flags, pullUsage, 1, args, environ, stdout)
	if err != nil || helped {
		return exitCode(err, 0, 0), err
	}
	if len(rest) != 1 {
		return exitUsage, usagef("embed pull takes one model")
	}
	id, revision, ok := transformer.Families.Hub(rest[0])
	if !ok {
		return exitUsage, usagef("embed pull: %q is no model of the hub: neither ORG/NAME nor a short name%s",
			rest[0], meantModel(rest[0], transformer.Families...))
	}
	if variable := hub.Offline(); variable != "" {
		return exitNothing, fmt.Errorf("%s forbids the network: %s", variable, elsewhere(id, revision))
	}
	screen, terminal := newScreen(stderr)
	log, err := newLog(s, screen, terminal && colored(environ))
	if err != nil {
		return exitUsage, err
	}
	d := &download{log: log, screen: screen, dashboard: terminal && !s.quiet}
	folder, err := d.pull(ctx, id, revision)
	if err == nil {
		_, err = fmt.Fprintln(stdout, folder)
	}
	return exitCode(err, 0, 0), err
}

// openOrPull opens the model for an alphabet. If the model is not cached, openOrPull downloads it, unless the network
// is forbidden.
func (c *command) openOrPull(ctx context.Context, a seqio.Alphabet) (*model, error) {
	m, err := c.openModel(a)
	var missing *weights.NotCached
	if !errors.As(err, &missing) {
		return m, err
	}
	if err := pullMissing(ctx, c, missing, err, "--offline or --dry-run"); err != nil {
		return nil, err
	}
	return c.openModel(a)
}

// openAny opens the checkpoint of a model of any family. If the model is not cached, openAny downloads it, unless the
// network is forbidden.
func openAny(ctx context.Context, c *command, name string) (*transformer.Checkpoint, error) {
	checkpoint, err := transformer.Families.Open(name)
	if missing := (*weights.NotCached)(nil); errors.As(err, &missing) {
		if err := pullMissing(ctx, c, missing, err, "--offline"); err != nil {
			return nil, err
		}
		checkpoint, err = transformer.Families.Open(name)
	}
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, meantModel(name, transformer.Families...))
	}
	return checkpoint, nil
}

// pullMissing downloads a missing model. If the network is forbidden, pullMissing returns err with the flags that may
// forbid the network, and with the command that downloads the model on another machine.
func pullMissing(ctx context.Context, c *command, missing *weights.NotCached, err error, flags string) error {
	by := hub.Offline()
	if c.offline || c.dryRun {
		by = flags
	}
	if by != "" {
		return fmt.Errorf("%w; %s forbids the network: %s", err, by, elsewhere(missing.ID, missing.Revision))
	}
	d := &download{log: c.log, screen: c.progress.screen, dashboard: c.progress.dashboard}
	if _, err := d.pull(ctx, missing.ID, missing.Revision); err != nil {
		return fmt.Errorf("%w%s", err, meantModel(missing.ID, transformer.Families...))
	}
	return nil
}

// download shows the progress of a download. If dashboard is set there is a bar for the present file, and otherwise
// there are log lines.
type download struct {
	log       *slog.Logger
	screen    *monitor.Screen // shows the log and the bar
	dashboard bool            // whether the screen may show a bar

	told    time.Time // time of the last log line
	present atomic.Pointer[transfer]
}

// transfer is the download of one file.
type transfer struct {
	file        string
	first, size int64 // size in bytes of the file when the download began, and of the complete file
	began       time.Time
	done        atomic.Int64 // number of bytes in the file so far
}

// lines returns the progress bar of the present file, or nothing before the first file.
func (d *download) lines(width int) []string {
	t := d.present.Load()
	if t == nil {
		return nil
	}
	done := t.done.Load()
	percent := 100 * done / max(1, t.size)
	return []string{monitor.Fit(width, plain(t.file), fmt.Sprintf("%d%% of %d MB", percent, t.size/1e6),
		fmt.Sprintf("%.0f MB/s", t.rate(done)/1e6), monitor.Bar(percent))}
}

// rate returns the mean speed of this download in bytes per second, when the file has grown to done bytes. Bytes of an
// earlier, interrupted download do not count.
func (t *transfer) rate(done int64) float64 {
	return float64(done-t.first) / max(1e-3, time.Since(t.began).Seconds())
}

// pull downloads a model and returns the folder of its files in the cache.
func (d *download) pull(ctx context.Context, id, revision string) (folder string, err error) {
	client, err := hub.FromEnvironment()
	if err != nil {
		return "", err
	}
	client.Progress = d.show
	d.log.Info("downloading", "model", id, "from", client.Address(), "to", client.Cache)
	if d.dashboard {
		d.screen.Show(d.lines)
	}
	folder, err = client.Pull(ctx, id, revision, weights.HubFiles)
	d.screen.Close()
	switch {
	case err == nil:
		return folder, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("downloading %s: %w", id, pool.ErrInterrupted)
	case hub.IsTemporary(err):
		return "", fmt.Errorf("%w; the same command continues; %s", err, elsewhere(id, revision))
	case errors.Is(err, hub.ErrUnreachable):
		return "", fmt.Errorf("%w; %s", err, elsewhere(id, revision))
	case errors.As(err, new(*fs.PathError)):
		return "", &cacheError{fmt.Errorf("%w; %s takes another folder for the cache", err, hub.CacheVariable())}
	}
	return "", err
}

// fetchAgain appends to err, an error about the files of a model, the command that fetches them again, if err names a
// path in the cache of models. Files that are missing or damaged may then be the cause.
func fetchAgain(model string, err error) error {
	cache, _ := hub.Cache()
	if _, _, ok := transformer.Families.Hub(model); !ok || cache == "" || !strings.Contains(err.Error(), cache) ||
		errors.As(err, new(*weights.NotCached)) || errors.Is(err, transformer.ErrUnsupported) {
		return err
	}
	return fmt.Errorf("%w; embed pull %s fetches files that are missing or damaged", err, model)
}

// cacheError is an error in writing to the cache of models.
type cacheError struct{ error }

// Unwrap returns the wrapped error.
func (e *cacheError) Unwrap() error { return e.error }

// elsewhere returns an instruction for users without a network: how to download the model on another machine and copy
// it.
func elsewhere(id, revision string) string {
	command := "hf download " + id
	if revision != "" {
		command += " --revision " + revision
	}
	return "on a machine with a network, " + command + " --local-dir DIR fetches the model: copy that folder here and name it instead"
}

// show shows how far the download of a file is, as a bar or as a log line from time to time. done and size are in
// bytes. It implements hub.Client.Progress.
func (d *download) show(file string, done, size int64) {
	t := d.present.Load()
	if t == nil || file != t.file {
		t = &transfer{file: file, first: done, size: size, began: time.Now()}
		d.present.Store(t)
		d.told = time.Now()
	}
	t.done.Store(done)
	if !d.dashboard && time.Since(d.told) >= tellEvery {
		d.told = time.Now()
		d.log.Info("downloading", "file", file, "percent", 100*done/max(1, size), "MB/s", int64(t.rate(done)/1e6))
	}
}
