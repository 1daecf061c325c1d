package tokenizer

import (
	"bytes"
	"fmt"
	"sync"
)

// syntheticSize is the number of entries in the synthetic vocabulary. The embedding table of a synthetic checkpoint of
// a DNA model has as many rows.
const syntheticSize = 4096

// SyntheticDNA returns the tokenizer for synthetic checkpoints of DNA models, the same one on every call. Its
// vocabulary, which SyntheticDNAFile describes, is artificial, without biological meaning, and will never change.
func SyntheticDNA() *BPE { return syntheticDNA() }

var syntheticDNA = sync.OnceValue(func() *BPE {
	t, err := ParseBPE(SyntheticDNAFile())
	if err != nil {
		panic(fmt.Sprintf("tokenizer: the synthetic vocabulary: %v", err))
	}
	return t
})

// SyntheticDNAFile returns the tokenizer.json of SyntheticDNA. Hugging Face's tokenizers can read it, too.
//
// Its entries are [UNK], [CLS], [SEP], [PAD] and [MASK], the letters A, C, G and T, then all words of two, three, four
// and five letters, then 2,727 of the 4,096 words of six letters. Each word is merged from two shorter ones: its first
// half, which has one letter more if the length is odd, and the rest.
//
// A merge that is listed earlier is applied first. In alphabetical order the first merges would all be of words that
// begin with A, so the words of each length are listed in a scattered order. Counted from 0, the i-th of n words is the
// number (step·i + ⌊n/3⌋) mod n, written in base 4 with the digits A, C, G, T, where step is ⌊0.618 n⌋ or, if that is
// even, one more.
func SyntheticDNAFile() []byte {
	const letters = "ACGT"
	var vocab, merges bytes.Buffer
	vocab.WriteString(`"[UNK]":0,"[CLS]":1,"[SEP]":2,"[PAD]":3,"[MASK]":4`)
	id := 5
	for _, letter := range letters {
		fmt.Fprintf(&vocab, `,"%c":%d`, letter, id)
		id++
	}
	for length := 2; id < syntheticSize; length++ {
		words := 1 << (2 * length)
		step := words*618/1000 | 1
		for i := 0; i < words && id < syntheticSize; i++ {
			number := (step*i + words/3) % words
			word := make([]byte, length)
			for at := length - 1; at >= 0; at-- {
				word[at] = letters[number%4]
				number /= 4
			}
			half := (length + 1) / 2
			fmt.Fprintf(&vocab, `,"%s":%d`, word, id)
			fmt.Fprintf(&merges, `,"%s %s"`, word[:half], word[half:])
			id++
		}
	}
	added := ""
	for i, special := range []string{"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"} {
		added += fmt.Sprintf(`,{"id":%d,"content":"%s","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}`, i, special)
	}
	return fmt.Appendf(nil, `{"version":"1.0","truncation":null,"padding":null,"added_tokens":[%s],"normalizer":null,`+
		`"pre_tokenizer":{"type":"Whitespace"},"post_processor":{"type":"TemplateProcessing","single":[`+
		`{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],`+
		`"pair":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}},`+
		`{"Sequence":{"id":"B","type_id":1}},{"SpecialToken":{"id":"[SEP]","type_id":1}}],"special_tokens":{`+
		`"[CLS]":{"id":"[CLS]","ids":[1],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[2],"tokens":["[SEP]"]}}},"decoder":null,`+
		`"model":{"type":"BPE","dropout":null,"unk_token":"[UNK]","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,`+
		`"vocab":{%s},"merges":[%s]}}`+"\n", added[1:], &vocab, merges.Bytes()[1:])
}
