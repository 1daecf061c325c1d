package seqio

import (
	"bytes"
	"io"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// FuzzCompressed checks the reading of compressed data that is damaged in up to two places and may be truncated.
// Reading must never return a wrong text without an error, and must take bounded time and memory. All formats contain a
// checksum of the text, so damage can be detected.
func FuzzCompressed(f *testing.F) {
	formats := compressions(f)
	names := slices.Sorted(maps.Keys(formats))[1:] // without "", the plain text
	text := []byte(">a x\nACGTACGTTTACG\n>b\nMKV\n")
	for i := range names {
		f.Add(text, uint8(i), uint16(0), uint8(0), uint16(0), uint8(0), uint16(0))
		f.Add(text, uint8(i), uint16(5), uint8(0xff), uint16(14), uint8(1), uint16(0))
		f.Add(bytes.Repeat(text, 10), uint8(i), uint16(40), uint8(0x10), uint16(40), uint8(0), uint16(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, format uint8, at uint16, flip uint8, at2 uint16, flip2 uint8, cut uint16) {
		name := names[int(format)%len(names)]
		content := formats[name](string(text))
		content[int(at)%len(content)] ^= flip
		content[int(at2)%len(content)] ^= flip2
		if cut > 0 {
			content = content[:max(0, len(content)-int(cut))]
		}
		// The memory for a zstd frame with a huge window is bounded only by maxZstdWindow. TestZstdWindows checks such
		// frames.
		var frame zstd.Header
		if frame.Decode(content) == nil && frame.WindowSize > 16<<20 {
			return
		}
		most := len(text) + 1<<20 // maximum number of bytes to decompress
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		src, err := newSource(bytes.NewReader(content))
		var got []byte
		if err == nil {
			// Damage may change the first bytes, by which a compression is recognised. The data is then read as plain
			// text, which has no checksum.
			if src.compression == "" {
				src.close()
				return
			}
			got, err = io.ReadAll(io.LimitReader(src, int64(most)))
			src.close()
		}
		runtime.ReadMemStats(&after)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: %d bytes take %v", name, len(content), took)
		}
		// The limit leaves room for the buffers of the decoders, which take some megabytes.
		if took := after.TotalAlloc - before.TotalAlloc; took > 128<<20+16*uint64(len(text)) {
			t.Errorf("%s: %d bytes of data take %d of memory", name, len(content), took)
		}
		want := bytes.TrimPrefix(text, []byte(byteOrderMark))
		// A text that LimitReader has cut off is not compared, because its checksum, which is at the end, was not read.
		if err == nil && len(got) < most && !bytes.Equal(got, want) {
			t.Errorf("%s: damaged data is read as %.200q, want %.200q or an error", name, got, want)
		}
	})
}
