// Command embed turns FASTA and FASTQ files of DNA and of proteins into embeddings.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"seqembed/pool"
)

// grace is how long a run that is interrupted may take to end: together with lastWord, and the end of the process, not
// more than five seconds.
var grace = 4500 * time.Millisecond

// lastWord is how long standard error may take to accept the last line.
const lastWord = 200 * time.Millisecond

func main() {
	// A crash of Go's runtime ends with exit code 2 otherwise, which says that some inputs failed.
	debug.SetTraceback("crash")
	leaveNoCore(os.Environ())
	runtime.GOMAXPROCS(scheduledThreads(os.Environ()))
	// The first signal asks the run to end cleanly. The notification is stopped before anybody is told, which gives the
	// second signal its usual effect.
	signaled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, interrupt := context.WithCancel(context.Background())
	context.AfterFunc(signaled, func() {
		stop()
		interrupt()
		time.Sleep(grace)
		endProcess()
	})
	os.Exit(runOn(ctx, thisMachine, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// endProcess ends an interrupted run whatever it waits for: a batch may take minutes, and so may weights, a lock, a
// disk or a driver that does not answer, and standard error may be a pipe that nobody reads. Committed outputs remain.
func endProcess() {
	said := make(chan struct{})
	go func() {
		printError(os.Stderr, withHint(fmt.Errorf("%w while a device, a disk or a lock was busy", pool.ErrInterrupted)))
		close(said)
	}()
	select {
	case <-said:
	case <-time.After(lastWord):
	}
	os.Exit(exitInterrupted)
}
