// Package tokenizer turns sequences into the token ids that models read: byte-pair encoding of DNA from a Hugging Face
// tokenizer.json, and letter by letter with a fixed vocabulary.
//
// It knows letters and ids only. It must not know of files of sequences, records, batches or models: upper-casing, U to
// T, truncation and packing belong to its callers.
package tokenizer

// A Tokenizer turns one sequence into token ids, the model's special tokens around them. It is safe for concurrent use.
type Tokenizer interface {
	// Append appends the ids of seq, special tokens included, to dst and returns the extended slice; unknown is the
	// number of letters that became the unknown token. Every sequence has ids, an empty one the special tokens alone.
	Append(dst []int32, seq []byte) (ids []int32, unknown int)
	// VocabSize is the number of ids: every id that Append writes is at least 0 and less than it.
	VocabSize() int
	// SHA256 identifies the vocabulary, in hexadecimal, for the manifest.
	SHA256() string
}

var (
	_ Tokenizer = (*BPE)(nil)
	_ Tokenizer = (*Letters)(nil)
)
