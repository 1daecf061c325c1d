package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// The special tokens of ESM-2 that Append writes.
const (
	esm2Cls     = 0
	esm2Eos     = 2
	esm2Unknown = 3
)

// esm2Alphabet lists ESM-2's vocabulary in the order of its ids.
const esm2Alphabet = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"

// ESM2 tokenizes proteins: <cls>, one token for each residue, <eos>. Its 33-entry vocabulary is the same for all sizes
// of ESM-2. Letters are upper case; any byte outside the alphabet is one <unk> of its own.
type ESM2 struct {
	residues [256]int32
	size     int
	digest   string
}

// NewESM2 returns the tokenizer of every ESM-2 model.
func NewESM2() *ESM2 {
	entries := strings.Fields(esm2Alphabet)
	digest := sha256.Sum256([]byte(strings.Join(entries, "\n")))
	t := &ESM2{size: len(entries), digest: hex.EncodeToString(digest[:])}
	for i := range t.residues {
		t.residues[i] = esm2Unknown
	}
	for id, entry := range entries {
		if len(entry) == 1 {
			t.residues[entry[0]] = int32(id)
		}
	}
	return t
}

// Append appends <cls>, the ids of seq's residues and <eos> to dst; unknown is the number of residues that became <unk>.
func (t *ESM2) Append(dst []int32, seq []byte) (ids []int32, unknown int) {
	dst = append(dst, esm2Cls)
	for _, residue := range seq {
		id := t.residues[residue]
		if id == esm2Unknown {
			unknown++
		}
		dst = append(dst, id)
	}
	return append(dst, esm2Eos), unknown
}

// VocabSize is 33.
func (t *ESM2) VocabSize() int { return t.size }

// SHA256 is the digest of the 33 entries joined by newlines, which is that of the checkpoints' vocab.txt.
func (t *ESM2) SHA256() string { return t.digest }
