package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// The special tokens of ESM-2 that Append uses.
const (
	esm2Cls     = 0
	esm2Eos     = 2
	esm2Unknown = 3
)

// esm2Alphabet lists the vocabulary of ESM-2 in the order of its ids.
const esm2Alphabet = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"

// ESM2 tokenizes proteins: <cls>, one token for each residue, <eos>. All sizes of ESM-2 have the same vocabulary of 33
// entries. Letters must be upper case; each byte outside the alphabet becomes one <unk>.
type ESM2 struct {
	residues [256]int32
	size     int
	digest   string
}

// NewESM2 returns the tokenizer of all ESM-2 models.
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

// Append appends <cls>, the ids of seq's residues and <eos> to dst and returns the extended slice. unknown is the
// number of residues that became <unk>.
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

// VocabSize returns 33.
func (t *ESM2) VocabSize() int { return t.size }

// SHA256 returns the digest of the 33 entries joined by newlines, which is also the digest of the checkpoints'
// vocab.txt.
func (t *ESM2) SHA256() string { return t.digest }
