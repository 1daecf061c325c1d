package pool

// Spans are lists of consecutive records. They wait in a queue from which the next free device takes one. If the last
// span is large, its device still computes while the other devices have nothing left. Therefore spans become smaller
// towards the end of a run, as in guided self-scheduling (Polychronopoulos and Kuck, IEEE Transactions on Computers 36,
// 1987).

const (
	// sharesLeft sets the size of the next span in a run on several devices, between the minimum and the maximum size.
	// The size is the number of tokens left in the run, divided by sharesLeft times the number of devices.
	sharesLeft = 2
	// minShare sets the minimum size of a span: the maximum number of tokens in a batch, divided by minShare. Smaller
	// spans would not save time, because a batch takes some time whatever its size.
	minShare = 4
	// packingLoss makes a span of one or more full batches smaller, by one part in packingLoss of its tokens. Batches
	// are never quite full. Without this reduction, most spans would need one more batch for a few tokens.
	packingLoss = 32
)

// nextCapacity returns the maximum number of tokens in the next span (list of consecutive records) of a file. It is at
// most the argument most, and becomes smaller towards the end of a run on several devices. budget is the number of
// tokens in a full batch. The tokens that are left in the run are estimated from the bytes that are left to be read,
// and from the tokens per byte in the part of this file that has been read.
func (f *fileJob) nextCapacity(most, budget int) int {
	if most <= budget {
		return most
	}
	capacity := most
	if len(f.Devices) > 1 && !f.once() {
		tokensPerByte := 1.0 // a first guess, too high for DNA, whose tokens have several letters
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

// leave is called when the reader of a file ends. It subtracts the bytes of the file that the reader has not read from
// the bytes that are left to be read in the run.
func (f *fileJob) leave() {
	if !f.once() {
		f.unread.Add(f.position - f.Size)
	}
}
