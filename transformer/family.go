package transformer

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/kernels"
	"seqembed/tokenizer"
	"seqembed/weights"
)

// Family is a kind of model and everything that the program knows about it. Every family has a file of its own, and no
// other code depends on which family it is. Checkpoints of a family differ in their weights and in their Config.
type Family struct {
	Name      string         // name in messages and in the help
	Alphabet  seqio.Alphabet // alphabet of the sequences that the models read
	Flag      string         // prefix of the family's flags: "esm" gives --esm-model
	VirNucPro string         // name of the model in the file names of the program VirNucPro
	Published []Published    // models on the Hugging Face hub, smallest first, and then models for tests
	Licence   string         // licence of the published models, as an SPDX identifier
	Default   string         // the model to use if none is named: a short name, or synthetic:NAME

	// The function tokenizer returns the tokenizer for the content of a vocabulary file. For nil it returns the
	// tokenizer of synthetic checkpoints, whose weights are computed. If FixedVocabulary is set, the function returns
	// the same tokenizer for any content.
	VocabularyFile  string // name of the vocabulary file in a checkpoint's folder; "" if FixedVocabulary is set
	FixedVocabulary bool
	tokenizer       func(content []byte) (tokenizer.Tokenizer, error)
	tableMultiple   int  // if not 0, the table of embeddings may be padded to a multiple of this number of rows
	Before, After   int  // number of special tokens before and after a sequence
	MeanOfSpecial   bool // whether the mean of a sequence includes special tokens
	MaxLength       int  // default limit of letters in a sequence; 0 means no limit
	Window          int  // if MaxLength is 0, default length in letters of the pieces that --long window cuts

	// A checkpoint belongs to the family if the field marker is the canonical name (see below) of one of its tensors.
	// If the checkpoint has a config.json, the model_type in it must also be modelType. Families with the same
	// modelType have different markers.
	modelType, marker string

	// The code of the family uses canonical names of tensors, and files may store them under other names. The canonical
	// name follows from the stored name: the first prefix of prefixes that matches is removed, an ending in oldNames is
	// replaced, and then rename, unless it is nil, translates the names of other libraries.
	//
	// Tensors whose canonical names match a pattern (see path.Match) of ignored or tuned are left out. ignored lists
	// tensors of published checkpoints that embeddings do not need. tuned lists the heads of fine-tuned models, such as
	// classifiers, which are reported to the user.
	prefixes, ignored, tuned []string
	rename                   func(name string) string
	besideFiles              []string // ends of the names of files that look like checkpoints but are none

	// configJSON returns the config.json of a synthetic model; its bytes are part of the checkpoint's digest. activation
	// is the only hidden_act that the family supports; a config.json may omit it. own, unless it is nil, parses the
	// values of config.json that only this family has. It returns them for Config.Own, or an error for a model that the
	// family does not support. deduce, unless it is nil, completes the Config of a checkpoint without config.json from
	// the values that a PyTorch file stores beside the tensors. another, unless it is nil, returns an error if such a
	// checkpoint is of a similar model that the family does not compute.
	configJSON func(layers, hidden, heads int) string
	activation string
	own        func(configJSON []byte) (any, error)
	deduce     func(values map[any]any, config *Config)
	another    func(c *weights.Checkpoint) error

	// tensors lists the tensors of a model under their canonical names. load loads them.
	tensors func(Config) []weights.Spec
	load    func(Config, *loader) network
}

// network is the forward pass of a model, with the model's weights.
type network interface {
	// build adds the forward pass, up to the block with the number last, to the program p. It calls the function visit
	// after the embedding, which counts as block 0, and after each block. x is the hidden state at this point.
	build(p *kernels.Program, last int, visit func(block int, x kernels.Value))
}

// Published is a model with a short name: a checkpoint on the Hugging Face hub, or a small model for tests, which has
// only synthetic weights.
type Published struct {
	Name  string // short name, such as "esm2-8m"
	Hub   string // id on the Hugging Face hub, or "" for a model that exists only with synthetic weights
	Alias string // name in the package fair-esm, whose cache stores the model as ALIAS.pt, or ""

	layers, hidden, heads int
}

// List is a list of families.
type List []*Family

// Families lists all families, those for DNA first.
var Families = List{DNABERT, ESM2}

// tunedHeads lists patterns for the names of tensors in the heads that the library transformers adds for fine-tuning.
var tunedHeads = []string{"classifier.*", "score.*", "qa_outputs.*"}

// oldNames maps endings of the stored names of tensors to the usual endings. transformers 5 stores the LayerNorms of
// some checkpoints under the names that TensorFlow uses.
var oldNames = [...][2]string{{"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}}

// wordEmbeddings is the canonical name of the table of token embeddings in every family. Lookup tables are the only
// matrices whose names begin with "embeddings.". Names of tensors in block N begin with "encoder.layer.N.".
const wordEmbeddings = "embeddings.word_embeddings.weight"

// published returns the first published model p for which is(p) is true, and the family of that model.
func (l List) published(is func(Published) bool) (*Family, Published, bool) {
	for _, f := range l {
		if i := slices.IndexFunc(f.Published, is); i >= 0 {
			return f, f.Published[i], true
		}
	}
	return nil, Published{}, false
}

// synthetic returns the config.json and the shape of the published model that has the given short name.
func (l List) synthetic(name string) (text string, c Config, err error) {
	f, p, ok := l.published(func(p Published) bool { return p.Name == name })
	if !ok {
		return "", Config{}, fmt.Errorf("there is no synthetic model %q; there are %s", name, strings.Join(l.names(true), ", "))
	}
	text = f.configJSON(p.layers, p.hidden, p.heads)
	if c, err = f.ParseConfig([]byte(text)); err != nil {
		return "", Config{}, fmt.Errorf("synthetic:%s: %w", name, err)
	}
	return text, c, nil
}

// Config returns the shape of the published model with a short name such as "esm2-8m".
func (l List) Config(name string) (Config, bool) {
	_, c, err := l.synthetic(name)
	return c, err == nil
}

// canonical returns the name that the code of the family uses for a tensor. The argument stored is the tensor's name in
// the file. The result use reports whether the tensor is kept. A tensor with an unknown name is kept; Checkpoint.Check
// refuses it later.
func (f *Family) canonical(stored string) (name string, use bool) {
	name = stored
	for _, p := range f.prefixes {
		if rest, ok := strings.CutPrefix(name, p); ok {
			name = rest
			break
		}
	}
	for _, old := range oldNames {
		if rest, ok := strings.CutSuffix(name, old[0]); ok {
			name = rest + old[1]
		}
	}
	if f.rename != nil {
		name = f.rename(name)
	}
	return name, !matches(name, f.ignored) && !matches(name, f.tuned)
}

// matches reports whether a name matches one of the patterns.
func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

// NewTokenizer returns the tokenizer of the family's synthetic checkpoints.
func (f *Family) NewTokenizer() tokenizer.Tokenizer {
	t, err := f.tokenizer(nil)
	if err != nil {
		panic(err) // no file is read, so this cannot fail
	}
	return t
}
