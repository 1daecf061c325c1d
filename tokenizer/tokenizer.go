// Package tokenizer converts sequences to the token ids that models read. It implements byte-pair encoding of DNA from
// a Hugging Face tokenizer.json, and one token per letter with a fixed vocabulary.
//
// The package handles only letters and ids. It must not depend on sequence files, records, batches or models; its
// callers convert letters to upper case, replace U by T, truncate sequences and pack them into batches.
package tokenizer

// A Tokenizer converts a sequence to token ids, including the model's special tokens. It is safe for concurrent use.
type Tokenizer interface {
	// Append appends the ids of seq, including special tokens, to dst and returns the extended slice. unknown is the
	// number of letters that became the unknown token. An empty sequence has only special tokens.
	Append(dst []int32, seq []byte) (ids []int32, unknown int)
	// VocabSize returns the number of entries in the vocabulary. Every id is at least 0 and less than VocabSize.
	VocabSize() int
	// ID returns the id of an entry of the vocabulary. found is false if there is no such entry.
	ID(entry string) (id int, found bool)
	// Letters returns the number of letters of a sequence that a token with the given id stands for. It must not be
	// called for special tokens.
	Letters(id int32) int
	// SHA256 returns a digest of the vocabulary in hexadecimal. It is written to manifest.jsonl, which describes the
	// outputs in a folder.
	SHA256() string
}

var (
	_ Tokenizer = (*BPE)(nil)
	_ Tokenizer = (*Letters)(nil)
)
