package pool

// The spans of a run are taken from a queue by whichever device is free. So a device that takes a large span as the
// last one computes while the others have nothing left. Therefore spans become smaller towards the end of a run, as in
// guided self-scheduling (Polychronopoulos and Kuck, IEEE Transactions on Computers 36, 1987).

const (
	// sharesLeft is the number of spans for each device into which the rest of a run is divided.
	sharesLeft = 2
	// minShare divides the budget. A span at the end of a run has at least so many tokens, because a batch takes some
	// time whatever its size.
	minShare = 4
	// packingLoss divides a number of batches of tokens. So many tokens fewer are in a span of these batches, because no
	// batch is quite full. Otherwise most spans would need one more batch, for a few tokens.
	packingLoss = 32
)

// nextCapacity returns the number of tokens for the next span of a file, at most most. That of a batch is the budget.
// It estimates the rest of the run from the bytes that no span has yet, at the tokens in a byte of this file so far.
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

// take counts a span as read.
func (f *fileJob) take(s *span) {
	position := f.reader.Position()
	s.bytes, f.position = position-f.position, position
	f.tokens += int64(s.tokens)
	if !f.once() {
		f.unread.Add(-s.bytes)
	}
}

// leave counts the bytes of a file that its reader has not read when it ends.
func (f *fileJob) leave() {
	if !f.once() {
		f.unread.Add(f.position - f.Size)
	}
}
