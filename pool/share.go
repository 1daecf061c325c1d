package pool

// The spans of a run are taken from a queue by whichever device is free. So a device that takes a large span as the
// last one computes while the others have nothing left. Therefore spans become smaller towards the end of a run, as in
// guided self-scheduling (Polychronopoulos and Kuck, IEEE Transactions on Computers 36, 1987).

const (
	// sharesLeft is the number of spans for each device into which the rest of a run is divided.
	sharesLeft = 2
	// minShare sets the minimum size of a span: the maximum number of tokens in a batch, divided by minShare. Smaller
	// spans would not save time, because a batch takes some time whatever its size.
	minShare = 4
	// packingLoss makes a span of several full batches smaller, by one part in packingLoss of its tokens. Batches are
	// never quite full, so that a few tokens of most spans would otherwise need one more batch.
	packingLoss = 32
)

// nextCapacity returns the number of tokens for the next span of a file: most of them, or fewer towards the end of a
// run on several devices. budget is the number of tokens in a full batch. The tokens that are left in the run are
// estimated from the bytes that are left to be read, and from this file's tokens per byte up to here.
func (f *fileJob) nextCapacity(most, budget int) int {
	if most <= budget {
		return most
	}
	capacity := most
	if len(f.Devices) > 1 && !f.once() {
		tokensPerByte := 1.0 // too many for DNA
		if f.position > 0 {
			tokensPerByte = float64(f.tokens) / float64(f.position)
		}
		left := float64(f.unread.Load()) * tokensPerByte
		capacity = min(most, int(left)/(sharesLeft*len(f.Devices)))
	}
	if capacity >= budget {
		capacity -= capacity % budget
		return capacity - capacity/packingLoss
	}
	return max(capacity, budget/minShare)
}

// take sets the size in bytes of a span that has been read, and subtracts it from the bytes that are left to be read in
// the run.
func (f *fileJob) take(s *span) {
	position := f.reader.Position()
	s.bytes, f.position = position-f.position, position
	f.tokens += int64(s.tokens)
	if !f.once() {
		f.unread.Add(-s.bytes)
	}
}

// leave is called when the reader of a file ends. It subtracts what the reader has not read of the file from the bytes
// that are left to be read in the run.
func (f *fileJob) leave() {
	if !f.once() {
		f.unread.Add(f.position - f.Size)
	}
}
