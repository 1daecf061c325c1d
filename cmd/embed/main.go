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

// grace is how long a run that is interrupted may take to end.
var grace = 5 * time.Second

func main() {
	// The first signal asks the run to end cleanly; stopping the notification gives the second one its usual effect. A
	// batch may take minutes, and so may weights: committed outputs remain wherever the process ends.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop()
		time.Sleep(grace)
		printError(os.Stderr, withHint(fmt.Errorf("%w while a device or a disk was busy", pool.ErrInterrupted)))
		os.Exit(exitInterrupted)
	})
	os.Exit(runOn(ctx, thisMachine, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
