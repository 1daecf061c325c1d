// Command embed turns FASTA and FASTQ files of DNA and of proteins into embeddings.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"seqembed/pool"
)

// grace is the time that an interrupted run may take to end.
var grace = 5 * time.Second

func main() {
	// The first signal asks the run to end cleanly. Stopping the notification restores the usual effect of a second
	// signal. A batch may take minutes, and so may loading weights; outputs that are complete remain wherever the
	// process ends.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop()
		time.Sleep(grace)
		printError(os.Stderr, withHint(fmt.Errorf("%w while a device or a disk was busy", pool.ErrInterrupted)))
		os.Exit(exitInterrupted)
	})
	os.Exit(runOn(ctx, thisMachine, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
