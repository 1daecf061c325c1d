package softgpu

import (
	"fmt"
	"strconv"
	"strings"
)

// ptxModule is a parsed PTX file.
type ptxModule struct {
	shared  []sharedArray // arrays that are visible to all kernels
	kernels []*ptxKernel
}

// ptxKernel is a kernel of a PTX file, which .entry declares.
type ptxKernel struct {
	name       string
	parameters []parameter
	maxThreads int               // value of .maxntid
	registers  map[string]string // type of registers, such as f32, by their name without the number, such as %f
	shared     []sharedArray
	body       []statement
}

type parameter struct{ kind, name string }

// sharedArray is an array in shared memory. It is dynamic shared memory if its size is 0.
type sharedArray struct {
	name         string
	align, bytes int
}

// statement is a label or an instruction.
type statement struct {
	line     int
	label    string
	guard    string // predicate register, or empty
	negated  bool   // whether the instruction runs if the guard is false
	opcode   string // with its modifiers, such as ld.global.v4.f32
	operands []operand
}

// operand is a register, number or symbol (in the field text), an address (in text and offset), or a vector. The first
// operand of a shuffle may also have a predicate register.
type operand struct {
	text      string
	predicate string
	address   bool
	offset    int64
	vector    []operand
}

// token is a word, a quoted string or a single punctuation character.
type token struct {
	text string
	line int
}

// parser parses the subset of PTX that nvcc generates for the kernels. Its errors name the line.
type parser struct {
	tokens []token
	at     int
}

// parsePTX parses the text of a PTX file.
func parsePTX(text string) (m *ptxModule, err error) {
	p := &parser{tokens: scan(text)}
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case syntaxError:
			m, err = nil, fmt.Errorf("line %d: %s", failed.line, failed.text)
		default:
			panic(failed)
		}
	}()
	m = &ptxModule{}
	for p.peek() != "" {
		switch directive := p.next(); directive {
		case ".version", ".target", ".address_size":
			p.next()
		case ".extern":
			p.expect(".shared")
			m.shared = append(m.shared, p.sharedArray())
		case ".visible":
			p.expect(".entry")
			m.kernels = append(m.kernels, p.kernel())
		default:
			p.fail("unknown directive %q outside of kernels", directive)
		}
	}
	return m, nil
}

// syntaxError is the value of the panics that parsePTX recovers.
type syntaxError struct {
	line int
	text string
}

// scan splits text into tokens and drops comments and white space.
func scan(text string) []token {
	var list []token
	for number, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "//")
		for i := 0; i < len(line); {
			c := line[i]
			end := i + 1
			switch {
			case c == ' ' || c == '\t' || c == '\r':
				i++
				continue
			case c == '"':
				if closing := strings.IndexByte(line[end:], '"'); closing >= 0 {
					end += closing + 1
				}
			case isWord(c):
				for end < len(line) && isWord(line[end]) {
					end++
				}
			}
			list = append(list, token{line[i:end], number + 1})
			i = end
		}
	}
	return list
}

func isWord(c byte) bool {
	return c == '.' || c == '_' || c == '%' || c == '$' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// peek returns the next token, or "" after the last token.
func (p *parser) peek() string {
	if p.at == len(p.tokens) {
		return ""
	}
	return p.tokens[p.at].text
}

func (p *parser) next() string {
	text := p.peek()
	if text == "" {
		p.fail("unexpected end of file")
	}
	p.at++
	return text
}

// accept consumes the next token if it equals the argument text, and reports whether it did.
func (p *parser) accept(text string) bool {
	if p.peek() != text {
		return false
	}
	p.at++
	return true
}

func (p *parser) expect(text string) {
	if got := p.next(); got != text {
		p.at--
		p.fail("found %q, want %q", got, text)
	}
}

func (p *parser) fail(format string, args ...any) {
	panic(syntaxError{p.line(), fmt.Sprintf(format, args...)})
}

// line returns the line of the next token. After the last token it returns the line of the last token.
func (p *parser) line() int {
	if len(p.tokens) == 0 {
		return 1
	}
	return p.tokens[min(p.at, len(p.tokens)-1)].line
}

func (p *parser) number() int {
	text := p.next()
	n, err := strconv.Atoi(text)
	if err != nil {
		p.at--
		p.fail("%q is not a number", text)
	}
	return n
}

// sharedArray parses a declaration of an array in shared memory, after the word .shared.
func (p *parser) sharedArray() sharedArray {
	p.expect(".align")
	a := sharedArray{align: p.number()}
	if a.align < 1 {
		p.fail("invalid alignment %d", a.align)
	}
	p.expect(".b8")
	a.name = p.next()
	p.expect("[")
	if p.peek() != "]" {
		a.bytes = p.number()
	}
	p.expect("]")
	p.expect(";")
	return a
}

// kernel parses a kernel after the word .entry: its name, its parameters and its body.
func (p *parser) kernel() *ptxKernel {
	k := &ptxKernel{name: p.next(), registers: map[string]string{}}
	p.expect("(")
	for !p.accept(")") {
		p.expect(".param")
		kind := strings.TrimPrefix(p.next(), ".")
		k.parameters = append(k.parameters, parameter{kind, p.next()})
		p.accept(",")
	}
	for !p.accept("{") {
		switch directive := p.next(); directive {
		case ".maxntid":
			k.maxThreads = p.number()
			p.expect(",")
			p.expect("1")
			p.expect(",")
			p.expect("1")
		case ".minnctapersm":
			p.number()
		default:
			p.fail("unknown directive %q before a kernel body", directive)
		}
	}
	if k.maxThreads < 1 {
		p.fail("%s has no .maxntid", k.name)
	}
	for !p.accept("}") {
		switch p.peek() {
		case ".reg":
			p.register(k)
		case ".shared":
			p.next()
			k.shared = append(k.shared, p.sharedArray())
		case ".pragma": // compiler hints
			p.next()
			p.next()
			p.expect(";")
		default:
			k.body = append(k.body, p.statement())
		}
	}
	return k
}

// register parses a declaration of registers: .reg .f32 %f<45>; or .reg .f32 %f;
func (p *parser) register(k *ptxKernel) {
	p.expect(".reg")
	kind, name := strings.TrimPrefix(p.next(), "."), p.next()
	if p.accept("<") {
		p.number()
		p.expect(">")
	}
	p.expect(";")
	if _, twice := k.registers[name]; twice {
		p.fail("registers %s are declared twice", name)
	}
	k.registers[name] = kind
}

func (p *parser) statement() statement {
	s := statement{line: p.line()}
	if p.accept("@") {
		s.negated = p.accept("!")
		s.guard = p.next()
	}
	word := p.next()
	if s.guard == "" && p.accept(":") {
		s.label = word
		return s
	}
	if !isWord(word[0]) || word[0] == '.' || word[0] == '%' {
		p.at--
		p.fail("%q is not an opcode", word)
	}
	s.opcode = word
	for !p.accept(";") {
		s.operands = append(s.operands, p.operand())
		if p.peek() != ";" {
			p.expect(",")
		}
	}
	return s
}

func (p *parser) operand() operand {
	switch {
	case p.accept("{"):
		var list []operand
		for !p.accept("}") {
			list = append(list, p.operand())
			p.accept(",")
		}
		return operand{vector: list}
	case p.accept("["):
		o := operand{text: p.next(), address: true}
		if p.accept("+") {
			o.offset = p.integer()
		}
		p.expect("]")
		return o
	case p.peek() == "-":
		return operand{text: strconv.FormatInt(p.integer(), 10)}
	}
	o := operand{text: p.next()}
	if !isWord(o.text[0]) {
		p.at--
		p.fail("%q is not an operand", o.text)
	}
	if p.accept("|") {
		o.predicate = p.next()
	}
	return o
}

func (p *parser) integer() int64 {
	sign := ""
	if p.accept("-") {
		sign = "-"
	}
	text := sign + p.next()
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		p.at--
		p.fail("%q is not an integer", text)
	}
	return n
}
