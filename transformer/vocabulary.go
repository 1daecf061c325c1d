package transformer

import (
	"fmt"
	"slices"

	"seqembed/tokenizer"
	"seqembed/weights"
)

// Tokenizer returns the tokenizer of the vocabulary in file. If file is "", it uses the vocabulary file in the
// checkpoint's folder or, for a synthetic checkpoint or a family with a fixed vocabulary, Family.NewTokenizer. It
// returns an error if the vocabulary does not fit the checkpoint's table of embeddings. If file is "", it also returns
// an error if the vocabulary contradicts other files of the checkpoint's folder.
func (c *Checkpoint) Tokenizer(file string) (tokenizer.Tokenizer, error) {
	f, own := c.Config.Family, file == ""
	if own && !f.FixedVocabulary && !c.Synthetic {
		if file = c.Beside(f.VocabularyFile); file == "" {
			return nil, fmt.Errorf("there is no %s beside %s; --%s-tokenizer FILE names one", f.VocabularyFile, c.Source, f.Flag)
		}
	}
	t, err := f.readTokenizer(file)
	switch {
	case err != nil && own && !f.FixedVocabulary:
		return nil, fmt.Errorf("%w; --%s-tokenizer FILE names another one", err, f.Flag)
	case err != nil:
		return nil, err
	}
	if err := f.checkSize(t, c.Config.Vocabulary); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Source, err)
	}
	if err := f.checkSpecial(t); err != nil {
		return nil, fmt.Errorf("%s %w", file, err)
	}
	for _, name := range tokenizer.VocabularyFiles {
		path := c.Beside(name)
		if !own || path == "" || path == file {
			continue
		}
		content, err := weights.ReadText(path)
		if err != nil {
			return nil, err
		}
		if err := tokenizer.Compare(t, name, content); err != nil {
			return nil, fmt.Errorf("%s is not of the tokenizer that %s uses: %w", path, f.Name, err)
		}
	}
	return t, nil
}

func (f *Family) readTokenizer(file string) (t tokenizer.Tokenizer, err error) {
	if file == "" {
		return f.NewTokenizer(), nil
	}
	content, err := weights.ReadText(file)
	if err != nil {
		return nil, err
	}
	if t, err = f.tokenizer(content); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// checkSpecial checks that a tokenizer puts f.Before special tokens before a sequence, and f.After after it.
func (f *Family) checkSpecial(t tokenizer.Tokenizer) error {
	special, _ := t.Append(nil, nil)
	ids, _ := t.Append(nil, []byte("A"))
	if len(special) != f.Before+f.After {
		return fmt.Errorf("puts %d special tokens around a sequence, and %s has %d: %w", len(special), f.Name, f.Before+f.After, ErrUnsupported)
	}
	before, after := ids[:f.Before], ids[len(ids)-f.After:]
	if !slices.Equal(before, special[:f.Before]) || !slices.Equal(after, special[f.Before:]) {
		return fmt.Errorf("does not put %d special token before a sequence and %d after it, as %s has them: %w", f.Before, f.After, f.Name, ErrUnsupported)
	}
	return nil
}

// checkSize checks that a table of embeddings has one row for each entry of the tokenizer. The number of rows may also
// be the number of entries rounded up to a multiple of f.tableMultiple.
func (f *Family) checkSize(t tokenizer.Tokenizer, rows int) error {
	n, multiple := t.VocabSize(), max(f.tableMultiple, 1)
	if rows == n || rows == (n+multiple-1)/multiple*multiple {
		return nil
	}
	return fmt.Errorf("vocab_size, the number of embeddings, is %d, and the tokenizer of %s has %d entries: %w",
		rows, f.Name, n, tokenizer.ErrVocabulary)
}
