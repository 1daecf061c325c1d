// Command embed turns FASTA and FASTQ files of DNA and of proteins into embeddings.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"seqembed/pool"
)

// grace is the time that a run may take to end after a signal. Then endProcess ends the process. grace and messageTime
// together are less than the five seconds that the documentation promises.
var grace = 4500 * time.Millisecond

// messageTime is the longest time that endProcess waits until the last lines are on standard error and report.json is
// on the disk.
const messageTime = 200 * time.Millisecond

// reportEnd points to a function that prints or logs the error of a run and writes report.json. If an interrupted run
// does not end in time, endProcess calls the function. Before a run has begun, and in a subcommand, reportEnd is nil,
// and endProcess only prints the error.
var reportEnd atomic.Pointer[func(error)]

func main() {
	// With "crash" a panic ends the process with SIGABRT on Unix. By default it ends with exit code 2, which in this
	// program means that some inputs failed.
	debug.SetTraceback("crash")
	leaveNoCore(os.Environ())
	runtime.GOMAXPROCS(scheduledThreads(os.Environ()))
	// At the first signal, stop restores the usual effect of signals, so that a second signal ends the process at once.
	// Then interrupt ends the context of the run.
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

// endProcess ends the process of a run that has not ended within grace after a signal. A batch may take minutes, and a
// call that reads weights, waits for a lock, or uses a disk or a driver may never return. Finished outputs remain.
// endProcess waits at most messageTime until the last lines are written, because standard error may be a pipe that
// nobody reads.
func endProcess() {
	ended := make(chan struct{})
	go func() {
		err := withHint(fmt.Errorf("%w while a device, a disk or a lock was busy", pool.ErrInterrupted))
		if report := reportEnd.Load(); report != nil {
			(*report)(err)
		} else {
			printError(os.Stderr, err)
		}
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(messageTime):
	}
	os.Exit(exitInterrupted)
}
