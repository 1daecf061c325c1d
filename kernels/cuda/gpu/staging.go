package gpu

import "seqembed/kernels/cuda/driver"

// Staging carries bytes to the device through two pieces of pinned memory on a stream of its own: while one is copied
// the other is filled. One goroutine at a time may use it.
type Staging struct {
	device *Device
	stream Stream
	pieces [2]struct {
		memory Pinned
		copied Event // the last bytes sent from here have arrived
	}
	next int
}

// NewStaging makes pieces of that many bytes, which belong to r.
func (d *Device) NewStaging(r *Resources, bytes int) (*Staging, error) {
	s := &Staging{device: d}
	return s, d.Do(func(c *Context) {
		s.stream = r.NewStream(c)
		for i := range s.pieces {
			s.pieces[i].memory, s.pieces[i].copied = r.Pin(c, bytes), r.NewEvent(c)
		}
	})
}

// Size is the bytes of a piece.
func (s *Staging) Size() int { return len(s.pieces[0].memory.Bytes) }

// Send lets write put bytes into the next piece, once it is free, and copies them to dst.
func (s *Staging) Send(dst driver.Pointer, bytes int, write func([]byte) error) error {
	p := &s.pieces[s.next]
	s.next = 1 - s.next
	if err := s.device.Wait(p.copied); err != nil {
		return err
	}
	if err := write(p.memory.Bytes[:bytes]); err != nil {
		return err
	}
	return s.device.Do(func(c *Context) {
		c.Upload(dst, p.memory, 0, bytes, s.stream)
		c.Record(p.copied, s.stream)
	})
}

// Drain waits until everything that was sent has arrived.
func (s *Staging) Drain() error {
	return s.device.Do(func(c *Context) { c.Synchronize(s.stream) })
}
