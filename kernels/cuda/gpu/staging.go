package gpu

import (
	"cmp"

	"seqembed/kernels/cuda/driver"
)

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

// NewStaging makes pieces of that many bytes.
func (d *Device) NewStaging(bytes int) (*Staging, error) {
	s := &Staging{device: d}
	err := d.Do(func(c *Context) (err error) {
		s.stream, err = c.NewStream()
		for i := range s.pieces {
			p := &s.pieces[i]
			if err == nil {
				p.memory, err = c.Pin(bytes)
			}
			if err == nil {
				p.copied, err = c.NewEvent()
			}
		}
		if err != nil {
			s.Free(c)
		}
		return err
	})
	return s, err
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
	return s.device.Do(func(c *Context) error {
		return cmp.Or(c.Upload(dst, p.memory, 0, bytes, s.stream), c.Record(p.copied, s.stream))
	})
}

// Drain waits until everything that was sent has arrived.
func (s *Staging) Drain() error {
	return s.device.Do(func(c *Context) error { return c.Synchronize(s.stream) })
}

// Free gives everything back; nil is nothing.
func (s *Staging) Free(c *Context) {
	if s == nil {
		return
	}
	for _, p := range s.pieces {
		c.FreeEvent(p.copied)
		c.Unpin(p.memory)
	}
	c.FreeStream(s.stream)
}
