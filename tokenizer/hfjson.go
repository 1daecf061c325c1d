package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits of a tokenizer.json. They bound the time and memory that a hostile file can take. The files of DNA models take
// less than a megabyte, their entries have a few dozen letters, and a sequence gets one special token at each end.
const (
	maxFileBytes = 16 << 20
	maxWidth     = 256 // letters of an entry
	maxSpecial   = 16  // special tokens before or after a sequence
)

// ErrUnsupported is wrapped by the error for a tokenizer.json with a feature that this package does not implement.
var ErrUnsupported = errors.New("not supported")

// ParseBPE reads the text of a Hugging Face tokenizer.json, version 1.0. It supports a BPE model over ASCII letters
// with the Whitespace pre-tokenizer and special tokens added by TemplateProcessing. It ignores truncation, padding, the
// decoder and the template for pairs, because a tokenizer of this package encodes single, whole sequences. If a setting
// would change the ids and is not implemented, the error names it and wraps ErrUnsupported.
//
// A sequence never contains special tokens: the text "[MASK]" in a sequence is just letters, as with the Hugging Face
// option encode_special_tokens.
//
// A file of more than 16 MiB, an entry of more than 256 letters, and more than 16 special tokens before or after a
// sequence are errors that wrap ErrTooLarge, so that the time and memory that a file can take are bounded.
func ParseBPE(data []byte) (*BPE, error) {
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("it has more than %d bytes, so it is no tokenizer.json: %w", maxFileBytes, ErrTooLarge)
	}
	var file map[string]json.RawMessage
	err := json.Unmarshal(data, &file)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) && syntax.Offset == int64(len(data)) && len(data) > 60 {
		return nil, fmt.Errorf("it is cut short: its JSON has no end (%w)", err)
	}
	if err != nil || isNull(file["model"]) {
		return nil, fmt.Errorf("it is not a tokenizer.json: it begins with %.60q", data)
	}
	for _, ignored := range []string{"truncation", "padding", "decoder"} {
		delete(file, ignored)
	}
	model, err := jsonObject(file["model"], "model")
	if err != nil {
		return nil, err
	}
	v, err := readModel(model)
	if err != nil {
		return nil, err
	}
	if err := v.readTemplate(file["post_processor"]); err != nil {
		return nil, err
	}
	if err := v.checkAddedTokens(file["added_tokens"]); err != nil {
		return nil, err
	}
	if err := expectJSON(file, "", "version", `"1.0"`); err != nil {
		return nil, err
	}
	if err := expectJSON(file, "", "normalizer", "null"); err != nil {
		return nil, err
	}
	splitter, err := jsonObject(file["pre_tokenizer"], "pre_tokenizer")
	if err != nil {
		return nil, err
	}
	if err := expectJSON(splitter, "pre_tokenizer.", "type", `"Whitespace"`); err != nil {
		return nil, err
	}
	if err := refuseOthers(splitter, "pre_tokenizer.", "type"); err != nil {
		return nil, err
	}
	if err := refuseOthers(file, "", "version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model"); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(data)
	return newBPE(v, hex.EncodeToString(digest[:]))
}

// readModel reads the section "model" of a tokenizer.json. newBPE checks the vocabulary and the merges later.
func readModel(model map[string]json.RawMessage) (*vocabulary, error) {
	for _, setting := range []struct {
		name    string
		neutral []string // values that disable the setting; an absent setting is null
	}{
		{"dropout", []string{"null", "0", "0.0"}},
		{"continuing_subword_prefix", []string{"null", `""`}},
		{"end_of_word_suffix", []string{"null", `""`}},
		{"fuse_unk", []string{"null", "false"}},
		{"byte_fallback", []string{"null", "false"}},
		{"ignore_merges", []string{"null", "false"}},
	} {
		if err := expectJSON(model, "model.", setting.name, setting.neutral...); err != nil {
			return nil, err
		}
		delete(model, setting.name)
	}
	if err := expectJSON(model, "model.", "type", `"BPE"`); err != nil {
		return nil, err
	}
	if err := refuseOthers(model, "model.", "type", "vocab", "merges", "unk_token"); err != nil {
		return nil, err
	}
	v := &vocabulary{}
	if err := readJSON(model["vocab"], "model.vocab", &v.ids); err != nil {
		return nil, err
	}
	var pairs []mergePair
	if err := readJSON(model["merges"], "model.merges", &pairs); err != nil {
		return nil, err
	}
	v.merges = make([][2]string, len(pairs))
	for i, pair := range pairs {
		v.merges[i] = pair
	}
	if err := readJSON(model["unk_token"], "model.unk_token", &v.unknown); err != nil {
		return nil, err
	}
	return v, nil
}

// A mergePair is one entry of model.merges: "A B" in older files, ["A", "B"] in newer files.
type mergePair [2]string

// UnmarshalJSON decodes "A B" or ["A", "B"].
func (m *mergePair) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		left, right, found := strings.Cut(text, " ")
		if !found || strings.Contains(right, " ") {
			return fmt.Errorf("merge %.80q does not consist of two parts separated by a space", text)
		}
		*m = mergePair{left, right}
		return nil
	}
	var parts []string
	if err := json.Unmarshal(data, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("a merge has %d parts, want 2", len(parts))
	}
	*m = mergePair(parts)
	return nil
}

// readTemplate reads which special tokens the section "post_processor" adds before and after a sequence.
func (v *vocabulary) readTemplate(section json.RawMessage) error {
	fields, err := jsonObject(section, "post_processor")
	if err != nil {
		return err
	}
	if err := expectJSON(fields, "post_processor.", "type", `"TemplateProcessing"`); err != nil {
		return err
	}
	if err := refuseOthers(fields, "post_processor.", "type", "single", "pair", "special_tokens"); err != nil {
		return err
	}
	type piece struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	}
	var single []struct{ SpecialToken, Sequence *piece }
	if err := readJSON(fields["single"], "post_processor.single", &single); err != nil {
		return err
	}
	var specials map[string]struct {
		IDs []int64 `json:"ids"`
	}
	if err := readJSON(fields["special_tokens"], "post_processor.special_tokens", &specials); err != nil {
		return err
	}
	sequences := 0
	for i, part := range single {
		if (part.SpecialToken == nil) == (part.Sequence == nil) {
			return fmt.Errorf("post_processor.single[%d] is neither a SpecialToken nor a Sequence: %w", i, ErrUnsupported)
		}
		// Only type_id 0 is accepted, because the models add row 0 of the table of token types to every token.
		if p := part.Sequence; p != nil {
			sequences++
			if p.ID != "A" || p.TypeID != 0 {
				return fmt.Errorf("post_processor.single[%d] is sequence %.20q of type %d, not A of type 0: %w", i, p.ID, p.TypeID, ErrUnsupported)
			}
			continue
		}
		name := part.SpecialToken.ID
		if part.SpecialToken.TypeID != 0 {
			return fmt.Errorf("post_processor.single[%d] has type %d, not 0: %w", i, part.SpecialToken.TypeID, ErrUnsupported)
		}
		side := &v.prefix
		if sequences > 0 {
			side = &v.suffix
		}
		if *side, err = v.appendSpecial(*side, name, specials[name].IDs); err != nil {
			return err
		}
	}
	if sequences != 1 {
		return fmt.Errorf("post_processor.single has %d sequences, want 1: %w", sequences, ErrUnsupported)
	}
	return nil
}

// appendSpecial appends the ids of the special token called name to the slice to. The ids must be in the vocabulary.
func (v *vocabulary) appendSpecial(to []int32, name string, ids []int64) ([]int32, error) {
	if len(ids) == 0 {
		return nil, fmt.Errorf("post_processor.special_tokens has no id for %.20q", name)
	}
	for _, id := range ids {
		if id < 0 || id >= int64(len(v.ids)) {
			return nil, fmt.Errorf("post_processor.special_tokens: id %d of %.20q is outside the vocabulary of %d", id, name, len(v.ids))
		}
		to = append(to, int32(id))
	}
	if len(to) > maxSpecial {
		return nil, fmt.Errorf("post_processor.single has more than %d special tokens on one side: %w", maxSpecial, ErrTooLarge)
	}
	return to, nil
}

// An addedToken is an entry of the section "added_tokens".
type addedToken struct {
	ID      int64  `json:"id"`
	Content string `json:"content"`
}

// checkAddedTokens returns an error for an added token that is not in the vocabulary or that may occur in a sequence of
// letters. Hugging Face's tokenizers would split the sequence at such a token before any merge.
func (v *vocabulary) checkAddedTokens(section json.RawMessage) error {
	var tokens []addedToken
	if isNull(section) {
		return nil
	}
	if err := readJSON(section, "added_tokens", &tokens); err != nil {
		return err
	}
	for _, token := range tokens {
		if id, found := v.ids[token.Content]; !found || id != token.ID {
			return fmt.Errorf("added token %.80q with id %d is not in model.vocab with that id: %w", token.Content, token.ID, ErrUnsupported)
		}
		if strings.IndexFunc(token.Content, func(r rune) bool { return !isWordLetter(r) }) < 0 {
			return fmt.Errorf("added token %.80q could be part of a sequence: %w", token.Content, ErrUnsupported)
		}
	}
	return nil
}

// jsonObject decodes the JSON object called name into a map of its fields. A map distinguishes "Type" from "type",
// while decoding into a struct would ignore case.
func jsonObject(data json.RawMessage, name string) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := readJSON(data, name, &fields); err != nil {
		return nil, err
	}
	return fields, nil
}

// readJSON decodes data, the section called name of a JSON file, into value. A missing section is an error.
func readJSON(data json.RawMessage, name string, value any) error {
	if isNull(data) {
		return fmt.Errorf("%s is missing or null", name)
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// isNull reports whether a section is absent or null, which are equivalent in these files.
func isNull(data json.RawMessage) bool { return len(data) == 0 || string(data) == "null" }

// expectJSON returns an error unless the value of the field called name is one of the allowed JSON texts. An absent
// field counts as null.
func expectJSON(fields map[string]json.RawMessage, section, name string, allowed ...string) error {
	got := string(fields[name])
	if got == "" {
		got = "null"
	}
	if !slices.Contains(allowed, got) {
		return fmt.Errorf("%s%s is %.80s, not %s: %w", section, name, got, strings.Join(allowed, " or "), ErrUnsupported)
	}
	return nil
}

// refuseOthers returns an error if a field has a name that is not in known and a value other than null.
func refuseOthers(fields map[string]json.RawMessage, section string, known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, name) && !isNull(fields[name]) {
			return fmt.Errorf("unknown setting %s%.40s: %w", section, name, ErrUnsupported)
		}
	}
	return nil
}
