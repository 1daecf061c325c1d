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

// Family is a kind of model, and all that the program knows of it: every family stands in a file of its own, and no
// other code asks which one it has. Checkpoints of a family differ in their weights and in the sizes of a Config.
type Family struct {
	Name      string         // for people
	Alphabet  seqio.Alphabet // of its sequences
	Flag      string         // begins the names of its flags: "esm" gives --esm-model
	VirNucPro string         // VirNucPro's name for it, in the names of the files that it reads
	Published []Published    // smallest first
	Default   string         // the model that is used if none is named: a short name, or synthetic:NAME

	// tokenizer makes the tokenizer of the content of a vocabulary file, or, from nil, that of the synthetic
	// checkpoints. A fixed vocabulary is that of every checkpoint, and is made from nil, too.
	VocabularyFile  string // its name in a checkpoint's folder, unless the vocabulary is fixed
	FixedVocabulary bool
	tokenizer       func(content []byte) (tokenizer.Tokenizer, error)
	tableMultiple   int  // the number of rows of a table of embeddings may be rounded up to a multiple of it
	Before, After   int  // special tokens that the tokenizer puts around a sequence
	MeanOfSpecial   bool // the mean of a sequence is over its special tokens, too
	MaxLength       int  // letters of a sequence that are used by default, 0 for all

	// How a checkpoint is recognised: by the model_type of its config.json, if it has one, and by a tensor that no
	// other family of that model_type has.
	modelType, marker string

	// How its tensors are stored. A name loses the first of prefixes that it has; then rename, unless it is nil, maps
	// names of another library to canonical ones. ignored and tuned are patterns, see path.Match, of canonical names
	// that no embedding needs: of what the published checkpoints hold beside the encoder, and of heads of fine-tuned
	// models, which are left out with a line that says so.
	prefixes, ignored, tuned []string
	rename                   func(name string) string
	besideFiles              []string // ends of the names of files that lie beside checkpoints

	// Its configuration. configJSON is the config.json of a model, whose bytes are part of the digest of a synthetic
	// checkpoint. eps is that of the LayerNorms where a config.json has none. activation is the only hidden_act that the
	// family computes; a config.json may leave it out. own reads the part of a config.json that this family alone has,
	// for Config.Own, and refuses models that the family does not compute; deduce, unless it is nil, completes the
	// configuration of a file without config.json by the values that it holds beside its tensors.
	configJSON func(layers, hidden, heads int) string
	eps        float32
	activation string
	own        func(configJSON []byte) (any, error)
	deduce     func(values map[any]any, config *Config)

	// Its tensors, under canonical names, and the network that is loaded from them.
	tensors func(Config) []weights.Spec
	load    func(Config, *loader) network
}

// network is a family's forward pass with its weights.
type network interface {
	// build adds the forward pass up to block last to a program. It calls visit after the embedding, as block 0, and
	// after each block, with the hidden state x.
	build(p *kernels.Program, last int, visit func(block int, x kernels.Value))
}

// Published is a checkpoint that has a name.
type Published struct {
	Name  string // the short name
	Hub   string // its id on the Hugging Face hub, "" for a model that is only synthetic
	Alias string // another name that people know it by, or ""

	layers, hidden, heads int
}

// List is the families that a program knows.
type List []*Family

// Families lists all families, those for DNA first.
var Families = List{DNABERT, ESM2}

// tunedHeads are the names that transformers gives to the heads of fine-tuned models.
var tunedHeads = []string{"classifier.*", "score.*", "qa_outputs.*"}

// oldNames are endings of names, and what they are now: transformers 5 stores some checkpoints under names of
// TensorFlow.
var oldNames = [...][2]string{{"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}}

// wordEmbeddings is the canonical name of every family's table of tokens. Tables are the only matrices whose names
// begin with "embeddings.", and the name of a block's tensor begins with "encoder.layer.N.".
const wordEmbeddings = "embeddings.word_embeddings.weight"

// published finds a published model by a name that a user may give.
func (l List) published(is func(Published) bool) (*Family, Published, bool) {
	for _, f := range l {
		if i := slices.IndexFunc(f.Published, is); i >= 0 {
			return f, f.Published[i], true
		}
	}
	return nil, Published{}, false
}

// synthetic returns the config.json and the shape of a published model, by its short name.
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

// canonical gives a stored tensor the name that the family's file uses, and tells whether an embedding needs it. A name
// that is not recognised stays as it is: whether it belongs is for Checkpoint.Check to say.
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

// matches reports whether one of the patterns fits a name.
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
		panic(err) // nothing is read
	}
	return t
}
