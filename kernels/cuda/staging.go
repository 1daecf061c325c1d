package cuda

// staging carries bytes to the device through two pieces of pinned memory on
// a stream of its own.
type staging struct {
	stream handle
	pieces [2]struct {
		memory pinned
		copied handle // event: what was last sent from here has arrived
	}
	next int
}

// newStaging makes pieces of that many bytes, on the device's thread.
func newStaging(d *device, bytes int) (*staging, error) {
	s := new(staging)
	var err error
	s.stream, err = d.newStream()
	for i := range s.pieces {
		p := &s.pieces[i]
		if err == nil {
			p.memory, err = d.pin(bytes)
		}
		if err == nil {
			p.copied, err = d.newEvent()
		}
	}
	if err != nil {
		s.free(d)
		return nil, err
	}
	return s, nil
}

// size is the bytes of a piece.
func (s *staging) size() int { return len(s.pieces[0].memory.bytes) }

// send lets write put bytes into the next piece, once it is free, and copies
// them to dst. write runs on the caller's goroutine.
func (s *staging) send(d *device, dst devicePtr, bytes int, write func([]byte) error) error {
	p := &s.pieces[s.next]
	s.next = 1 - s.next
	err := d.thread.call(func() error { return d.drv.cuEventSynchronize(p.copied).err("cuEventSynchronize") })
	if err != nil {
		return err
	}
	if err := write(p.memory.bytes[:bytes]); err != nil {
		return err
	}
	return d.thread.call(func() error {
		return first(
			d.upload(dst, p.memory, 0, bytes, s.stream),
			d.drv.cuEventRecord(p.copied, s.stream).err("cuEventRecord"))
	})
}

// drain waits until everything that was sent has arrived.
func (s *staging) drain(d *device) error {
	return d.thread.call(func() error { return d.drv.cuStreamSynchronize(s.stream).err("cuStreamSynchronize") })
}

// free runs on the device's thread; nil is nothing.
func (s *staging) free(d *device) {
	if s == nil {
		return
	}
	for _, p := range s.pieces {
		if p.copied != 0 {
			d.drv.cuEventDestroy(p.copied)
		}
		d.unpin(p.memory)
	}
	if s.stream != 0 {
		d.drv.cuStreamDestroy(s.stream)
	}
}
