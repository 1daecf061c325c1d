package softgpu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// translate translates PTX to the C++ source of a module, which uses sim/kernel.h. An unknown instruction is an error.
func translate(text string) (string, error) {
	m, err := parsePTX(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("#include \"kernel.h\"\n\nusing namespace softgpu;\n")
	var table strings.Builder
	for _, k := range m.kernels {
		t := translator{kernel: k, used: map[string]bool{}, labels: map[string]bool{}}
		t.layOut(append(slices.Clone(k.shared), m.shared...))
		if err := t.run(); err != nil {
			return "", err
		}
		t.write(&out, &table)
	}
	fmt.Fprintf(&out, "\nstatic const Kernel kernels[] = {\n%s};\nextern \"C\" const Module softgpu_module = {%d, kernels};\n", table.String(), len(m.kernels))
	return out.String(), nil
}

// translator translates one kernel.
type translator struct {
	kernel *ptxKernel
	line   int // line of the current statement
	code   strings.Builder
	used   map[string]bool // registers that the code uses
	labels map[string]bool // true for labels that are defined, false for labels that only branches have named so far

	symbols map[string]int // offset of each shared array in shared memory
	dynamic map[string]bool
	static  int  // number of bytes before dynamic shared memory
	reads   bool // whether the kernel uses dynamic shared memory

	waits int // number of the last barrier or wait for copies; a test names the one that it drops by its number
}

// layOut assigns an offset to every shared array. The static arrays come first, in their order. The dynamic arrays come
// after them and all have the same offset.
func (t *translator) layOut(arrays []sharedArray) {
	t.symbols, t.dynamic = map[string]int{}, map[string]bool{}
	up := func(n, align int) int { return (n + align - 1) / align * align }
	for _, a := range arrays {
		if a.bytes > 0 {
			t.symbols[a.name] = up(t.static, a.align)
			t.static = t.symbols[a.name] + a.bytes
		}
	}
	for _, a := range arrays {
		if a.bytes == 0 {
			t.static = up(t.static, a.align)
		}
	}
	for _, a := range arrays {
		if a.bytes == 0 {
			t.symbols[a.name], t.dynamic[a.name] = t.static, true
		}
	}
}

// write writes the kernel's C++ function to out, and the kernel's line of the module's table of kernels to table.
func (t *translator) write(out, table *strings.Builder) {
	k := t.kernel
	fmt.Fprintf(out, "\nstatic void %s(Thread &t, const uint64_t *slots) {\n", k.name)
	byType := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(t.used)) {
		c := ctypes[storage[t.typeOf(name)]]
		byType[c] = append(byType[c], register(name))
	}
	for _, c := range slices.Sorted(maps.Keys(byType)) {
		fmt.Fprintf(out, "    %s %s;\n", c, strings.Join(byType[c], ", "))
	}
	out.WriteString(t.code.String())
	fmt.Fprintf(out, "    (void)slots, (void)t;\n}\n")
	var sizes strings.Builder
	for _, p := range k.parameters {
		fmt.Fprintf(&sizes, "\\x%d", bytesOf[p.kind])
	}
	fmt.Fprintf(table, "    {%q, %d, %d, %t, %d, reinterpret_cast<const unsigned char *>(\"%s\"), %s},\n",
		k.name, k.maxThreads, t.static, t.reads, len(k.parameters), sizes.String(), k.name)
}

// translateError is an error that names the kernel and the line of PTX.
type translateError string

func (e translateError) Error() string { return string(e) }

func (t *translator) errorf(format string, args ...any) error {
	return translateError(fmt.Sprintf("%s, line %d: %s", t.kernel.name, t.line, fmt.Sprintf(format, args...)))
}

// run translates the body. The methods that it calls panic with a translateError on an invalid instruction.
func (t *translator) run() (err error) {
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case translateError:
			err = failed
		default:
			panic(failed)
		}
	}()
	for _, p := range t.kernel.parameters {
		if bytesOf[p.kind] == 0 {
			return t.errorf("unknown type %s of a parameter", p.kind)
		}
	}
	for body := t.kernel.body; len(body) > 0; {
		s := body[0]
		t.line = s.line
		if n := products(body); n > 0 {
			fmt.Fprintf(&t.code, "    %s\n", t.mma(body[:n]))
			body = body[n:]
			continue
		}
		body = body[1:]
		if s.label != "" {
			t.labels[s.label] = true
			fmt.Fprintf(&t.code, "%s:;\n", label(s.label))
			continue
		}
		c := t.instruction(s)
		if s.guard != "" {
			condition := t.value(operand{text: s.guard}, "pred")
			if s.negated {
				condition = "!" + condition
			}
			c = fmt.Sprintf("if (%s) { %s }", condition, c)
		}
		fmt.Fprintf(&t.code, "    %s\n", c)
	}
	for name, met := range t.labels {
		if !met {
			return t.errorf("undefined label %s", name)
		}
	}
	return nil
}

func label(name string) string    { return strings.ReplaceAll(name, "$", "") }
func register(name string) string { return strings.TrimPrefix(name, "%") }

// storage maps a PTX type to the type of the register that stores it. ctypes maps a PTX type to a C++ type, and bytesOf
// to its size in bytes. special maps the special registers of PTX to C++ expressions.
var (
	storage = map[string]string{"pred": "pred", "b16": "u16", "u16": "u16", "s16": "u16", "b32": "u32", "u32": "u32", "s32": "u32",
		"b64": "u64", "u64": "u64", "s64": "u64", "f32": "f32"}
	ctypes = map[string]string{"pred": "bool", "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t", "b16": "uint16_t", "u16": "uint16_t", "s16": "int16_t", "b32": "uint32_t", "u32": "uint32_t",
		"s32": "int32_t", "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t", "f32": "float"}
	bytesOf = map[string]int{"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "b32": 4, "u32": 4, "s32": 4, "b64": 8, "u64": 8, "s64": 8, "f32": 4}

	special = map[string]string{"%tid.x": "t.tid.x", "%ctaid.x": "t.ctaid.x", "%ctaid.y": "t.ctaid.y", "%ntid.x": "t.ntid.x",
		"%nctaid.x": "t.nctaid.x", "%nctaid.y": "t.nctaid.y", "%laneid": "(t.tid.x & 31)"}
)

// typeOf returns the declared type of a register.
func (t *translator) typeOf(name string) string {
	if kind, ok := t.kernel.registers[name]; ok {
		return kind
	}
	if kind, ok := t.kernel.registers[strings.TrimRight(name, "0123456789")]; ok {
		return kind
	}
	panic(t.errorf("register %s is not declared", name))
}

// value returns a C++ expression for an operand, in the type of the instruction.
func (t *translator) value(o operand, kind string) string {
	c := ctypes[kind]
	switch {
	case o.vector != nil || o.address || c == "":
		panic(t.errorf("want an operand of type %s", kind))
	case special[o.text] != "":
		return fmt.Sprintf("%s(%s)", c, special[o.text])
	case strings.HasPrefix(o.text, "%"):
		from := storage[t.typeOf(o.text)]
		t.used[o.text] = true
		if (from == "pred") != (kind == "pred") || from != "pred" && bytesOf[from] < bytesOf[kind] {
			panic(t.errorf("%s has type %s, want %s", o.text, from, kind))
		}
		switch {
		case from == storage[kind] && (kind == "f32" || kind[0] != 's'):
			return register(o.text)
		case from == "f32" || kind == "f32":
			if bytesOf[from] != bytesOf[kind] {
				panic(t.errorf("%s has type %s, want %s", o.text, from, kind))
			}
			return fmt.Sprintf("bits_as<%s>(%s)", c, register(o.text))
		}
		return fmt.Sprintf("%s(%s)", c, register(o.text))
	case strings.HasPrefix(o.text, "0f") && len(o.text) == 10 && kind == "f32":
		return fmt.Sprintf("bits_as<float>(0x%su)", o.text[2:])
	}
	if offset, ok := t.symbols[o.text]; ok {
		t.reads = t.reads || t.dynamic[o.text]
		return fmt.Sprintf("%s(shared_base + %d)", c, offset)
	}
	n, err := strconv.ParseInt(o.text, 0, 64)
	if err != nil || kind == "f32" || kind == "pred" {
		panic(t.errorf("%q is not an operand of type %s", o.text, kind))
	}
	return fmt.Sprintf("%s(%dLL)", c, n)
}

// set returns a C++ statement that assigns an expression of the given type to a register.
func (t *translator) set(o operand, kind, expression string) string {
	if !strings.HasPrefix(o.text, "%") || special[o.text] != "" || o.address || o.vector != nil {
		panic(t.errorf("%q is not a register", o.text))
	}
	to := storage[t.typeOf(o.text)]
	t.used[o.text] = true
	if (to == "pred") != (kind == "pred") || to != "pred" && bytesOf[to] < bytesOf[kind] {
		panic(t.errorf("%s has type %s, but is assigned %s", o.text, to, kind))
	}
	if (to == "f32") != (kind == "f32") {
		if bytesOf[to] != bytesOf[kind] {
			panic(t.errorf("%s has type %s, but is assigned %s", o.text, to, kind))
		}
		expression = fmt.Sprintf("bits_as<%s>(%s)", ctypes[to], expression)
	}
	return fmt.Sprintf("%s = %s;", register(o.text), expression)
}

// want panics unless the instruction has n operands.
func (t *translator) want(s statement, n int) {
	if len(s.operands) != n {
		panic(t.errorf("%s does not take %d operands", s.opcode, len(s.operands)))
	}
}

func (t *translator) instruction(s statement) string {
	if e, ok := expressions[s.opcode]; ok {
		return t.expression(s, e)
	}
	switch parts := strings.Split(s.opcode, "."); {
	case (parts[0] == "ld" || parts[0] == "st") && len(parts) > 2:
		return t.memory(s, parts)
	case parts[0] == "setp" && len(parts) == 3:
		return t.compare(s, parts[1], parts[2])
	}
	switch s.opcode {
	case "bra", "bra.uni":
		t.want(s, 1)
		name := s.operands[0].text
		if _, named := t.labels[name]; !named {
			t.labels[name] = false
		}
		return fmt.Sprintf("goto %s;", label(name))
	case "ret":
		t.want(s, 0)
		return "return;"
	case "mov.b32", "mov.u32", "mov.s32", "mov.f32", "mov.b64", "mov.u64", "mov.s64", "mov.u16", "mov.b16", "mov.pred":
		return t.move(s, strings.TrimPrefix(s.opcode, "mov."))
	case "bar.sync":
		t.want(s, 1)
		if s.operands[0].text != "0" {
			panic(t.errorf("barrier %s is not simulated", s.operands[0].text))
		}
		return t.wait("t.barrier();")
	case "bar.warp.sync":
		t.want(s, 1)
		return fmt.Sprintf("if (%s != ~0u) t.unsupported(\"a barrier of part of a warp\"); %s", t.value(s.operands[0], "u32"), t.wait("t.warp_barrier();"))
	case "shfl.sync.bfly.b32":
		return t.shuffle(s)
	case "cp.async.cg.shared.global":
		t.want(s, 4)
		if s.operands[2].text != "16" {
			panic(t.errorf("cp.async of %s bytes", s.operands[2].text))
		}
		return fmt.Sprintf("t.copy_async(%s, %s, %s);", t.address(s.operands[0], "u32"), t.address(s.operands[1], "u64"), t.value(s.operands[3], "u32"))
	case "cp.async.commit_group":
		t.want(s, 0)
		return "t.copy_commit();"
	case "cp.async.wait_group":
		t.want(s, 1)
		t.waits++ // a dropped wait lets one more group of copies stay pending
		return fmt.Sprintf("t.copy_wait(%s + (t.dropped == %d));", t.value(s.operands[0], "s32"), t.waits)
	case "ldmatrix.sync.aligned.m8n8.x4.shared.b16", "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16":
		t.want(s, 2)
		return fmt.Sprintf("{ uint32_t v[4]; t.ldmatrix(v, %s, %t); %s }", t.address(s.operands[1], "u32"),
			strings.Contains(s.opcode, ".trans."), t.spread(s.operands[0], 4, "b32", "v"))
	case mmaBF16, mmaFP16:
		return t.mma([]statement{s})
	}
	panic(t.errorf("unknown instruction %s", s.opcode))
}

// wait returns a C++ statement for a barrier. The statement does nothing if a test has dropped the barrier by its
// number.
func (t *translator) wait(barrier string) string {
	t.waits++
	return fmt.Sprintf("if (t.dropped != %d) %s", t.waits, barrier)
}

// address returns a C++ expression for [register + offset] or [symbol + offset].
func (t *translator) address(o operand, kind string) string {
	if !o.address {
		panic(t.errorf("%q is not an address", o.text))
	}
	base := t.value(operand{text: o.text}, kind)
	if o.offset == 0 {
		return base
	}
	return fmt.Sprintf("%s + %s(%d)", base, ctypes[kind], o.offset)
}

// list returns a C++ initializer list of the n elements of a vector, or of a single operand.
func (t *translator) list(o operand, n int, kind string) string {
	all := o.vector
	if all == nil && n == 1 {
		all = []operand{o}
	}
	if len(all) != n {
		panic(t.errorf("a vector of %d elements, want %d", len(all), n))
	}
	var texts []string
	for _, one := range all {
		texts = append(texts, t.value(one, kind))
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

// spread returns C++ statements that assign the elements of an array to the registers of a vector, or to a single
// register.
func (t *translator) spread(o operand, n int, kind, array string) string {
	all := o.vector
	if all == nil && n == 1 {
		all = []operand{o}
	}
	if len(all) != n {
		panic(t.errorf("a vector of %d elements, want %d", len(all), n))
	}
	var texts []string
	for i, one := range all {
		texts = append(texts, t.set(one, kind, fmt.Sprintf("%s[%d]", array, i)))
	}
	return strings.Join(texts, " ")
}

// memory translates ld of parameters, and ld and st of one, two or four values in global or shared memory.
func (t *translator) memory(s statement, parts []string) string {
	t.want(s, 2)
	n, space, kind := 1, parts[1], parts[len(parts)-1]
	switch rest := strings.Join(parts[2:len(parts)-1], "."); rest {
	case "":
	case "v2":
		n = 2
	case "v4":
		n = 4
	default:
		panic(t.errorf("unknown instruction %s", s.opcode))
	}
	bytes := bytesOf[kind]
	if bytes == 0 {
		panic(t.errorf("unknown instruction %s", s.opcode))
	}
	if space == "param" && parts[0] == "ld" && n == 1 {
		source := s.operands[1]
		i := slices.IndexFunc(t.kernel.parameters, func(p parameter) bool { return p.name == source.text })
		if i < 0 || source.offset != 0 || bytesOf[t.kernel.parameters[i].kind] != bytes {
			panic(t.errorf("no parameter %s of type %s", source.text, kind))
		}
		return t.set(s.operands[0], kind, fmt.Sprintf("parameter<%s>(slots[%d])", ctypes[kind], i))
	}
	at := map[string]string{"global": "u64", "shared": "u32"}[space]
	if at == "" {
		panic(t.errorf("unknown instruction %s", s.opcode))
	}
	if parts[0] == "ld" {
		return fmt.Sprintf("{ %s v[%d]; memcpy(v, t.%s(%s, %d), %d); %s }", ctypes[kind], n, space,
			t.address(s.operands[1], at), n*bytes, n*bytes, t.spread(s.operands[0], n, kind, "v"))
	}
	return fmt.Sprintf("{ const %s v[%d] = %s; memcpy(t.%s(%s, %d), v, %d); }", ctypes[kind], n, t.list(s.operands[1], n, kind), space,
		t.address(s.operands[0], at), n*bytes, n*bytes)
}

// move translates mov: it copies a value, packs two 16-bit halves into a word, or unpacks a word.
func (t *translator) move(s statement, kind string) string {
	t.want(s, 2)
	to, from := s.operands[0], s.operands[1]
	switch {
	case to.vector != nil && kind == "b32":
		return fmt.Sprintf("{ const uint32_t w = %s; const uint16_t v[2] = {uint16_t(w), uint16_t(w >> 16)}; %s }", t.value(from, kind), t.spread(to, 2, "b16", "v"))
	case from.vector != nil && kind == "b32":
		return fmt.Sprintf("{ const uint32_t v[2] = %s; %s }", t.list(from, 2, "b16"), t.set(to, kind, "(v[0] | v[1] << 16)"))
	}
	return t.set(to, kind, t.value(from, kind))
}

// orders maps the comparisons of PTX to C++ operators. The names of comparisons that are also true for NaN end in u;
// opposite maps each of them to its negation.
var (
	orders   = map[string]string{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
	opposite = map[string]string{"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}
)

func (t *translator) compare(s statement, order, kind string) string {
	t.want(s, 3)
	a, b := t.value(s.operands[1], kind), t.value(s.operands[2], kind)
	if kind == "f32" && order == "ne" || kind == "pred" { // ne of f32 is false for NaN, unlike != in C++
		panic(t.errorf("unknown instruction %s", s.opcode))
	}
	if c := orders[order]; c != "" {
		return t.set(s.operands[0], "pred", fmt.Sprintf("%s %s %s", a, c, b))
	}
	if not := opposite[order]; not != "" && kind == "f32" {
		if not == "ne" {
			panic(t.errorf("unknown instruction %s", s.opcode))
		}
		return t.set(s.operands[0], "pred", fmt.Sprintf("!(%s %s %s)", a, orders[not], b))
	}
	panic(t.errorf("unknown instruction %s", s.opcode))
}

func (t *translator) shuffle(s statement) string {
	t.want(s, 5)
	code := fmt.Sprintf("if (%s != 31 || %s != ~0u) t.unsupported(\"a shuffle of part of a warp\"); %s",
		t.value(s.operands[3], "u32"), t.value(s.operands[4], "u32"),
		t.set(s.operands[0], "b32", fmt.Sprintf("t.shuffle(%s, %s)", t.value(s.operands[1], "b32"), t.value(s.operands[2], "u32"))))
	if p := s.operands[0].predicate; p != "" {
		code += " " + t.set(operand{text: p}, "pred", "true") // true, because all lanes take part
	}
	return code
}

const (
	mmaBF16 = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
	mmaFP16 = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"

	mostProducts = 16 // most_products in sim/kernel.h
)

// products returns how many statements at the beginning of body are products of matrices (mma) that a warp can compute
// together: all of one type, without a guard, and none with an operand that an earlier one computes. It returns at most
// mostProducts.
func products(body []statement) (n int) {
	computed := map[string]bool{}
	for _, s := range body[:min(len(body), mostProducts)] {
		if s.opcode != mmaBF16 && s.opcode != mmaFP16 || s.opcode != body[0].opcode || s.guard != "" || len(s.operands) != 4 {
			break
		}
		for _, o := range s.operands[1:] {
			if slices.ContainsFunc(o.vector, func(o operand) bool { return computed[o.text] }) {
				return n
			}
		}
		for _, o := range s.operands[0].vector {
			computed[o.text] = true
		}
		n++
	}
	return n
}

// mma translates products of matrices that a warp can compute together.
func (t *translator) mma(list []statement) string {
	half := "bf16"
	if list[0].opcode == mmaFP16 {
		half = "fp16"
	}
	var a, b, c, results []string
	for i, s := range list {
		t.line = s.line
		t.want(s, 4)
		a = append(a, t.list(s.operands[1], 4, "b32"))
		b = append(b, t.list(s.operands[2], 2, "b32"))
		c = append(c, t.list(s.operands[3], 4, "f32"))
		results = append(results, t.spread(s.operands[0], 4, "f32", fmt.Sprintf("c[%d]", i)))
	}
	n := len(list)
	return fmt.Sprintf("{ static_assert(%d <= most_products, \"too many\"); float c[%d][4] = {%s}; const uint32_t a[%d][4] = {%s}, b[%d][2] = {%s}; t.mma(%d, c, a, b, %s); %s }",
		n, n, strings.Join(c, ", "), n, strings.Join(a, ", "), n, strings.Join(b, ", "), n, half, strings.Join(results, " "))
}

// expression is the translation of an instruction that computes one value of the type result. In text, $1, $2 and so
// on stand for the source operands, which are read as the types in operands.
type expression struct {
	result   string
	operands []string
	text     string
}

func (t *translator) expression(s statement, e expression) string {
	t.want(s, 1+len(e.operands))
	var pairs []string
	for i, kind := range e.operands {
		pairs = append(pairs, fmt.Sprintf("$%d", i+1), t.value(s.operands[i+1], kind))
	}
	return t.set(s.operands[0], e.result, strings.NewReplacer(pairs...).Replace(e.text))
}

// expressions maps PTX opcodes to their expressions.
var expressions = makeExpressions()

func makeExpressions() map[string]expression {
	all := map[string]expression{}
	add := func(text, result string, operands []string, opcodes ...string) {
		for _, name := range opcodes {
			all[name] = expression{result, operands, text}
		}
	}
	three := func(kind string) []string { return []string{kind, kind, kind} }
	two := func(kind string) []string { return []string{kind, kind} }
	one := func(kind string) []string { return []string{kind} }

	// PTX integers wrap around, so signed integers are added and multiplied as unsigned integers in C++.
	for _, width := range []string{"32", "64"} {
		u, s, b := "u"+width, "s"+width, "b"+width
		add("$1 + $2", u, two(u), "add.s"+width, "add.u"+width)
		add("$1 - $2", u, two(u), "sub.s"+width, "sub.u"+width)
		add("$1 * $2", u, two(u), "mul.lo.s"+width, "mul.lo.u"+width)
		add("$1 * $2 + $3", u, three(u), "mad.lo.s"+width, "mad.lo.u"+width)
		add("$1 / $2", s, two(s), "div.s"+width)
		add("$1 % $2", s, two(s), "rem.s"+width)
		add("$1 / $2", u, two(u), "div.u"+width)
		add("$1 % $2", u, two(u), "rem.u"+width)
		add("shift_left($1, $2)", u, []string{u, "u32"}, "shl.b"+width)
		add("shift_right($1, $2)", u, []string{u, "u32"}, "shr.u"+width, "shr.b"+width)
		add("shift_right($1, $2)", s, []string{s, "u32"}, "shr.s"+width)
		add("($3 ? $1 : $2)", b, []string{b, b, "pred"}, "selp.b"+width, "selp.u"+width, "selp.s"+width)
		add("($1 < $2 ? $1 : $2)", s, two(s), "min.s"+width)
		add("($1 > $2 ? $1 : $2)", s, two(s), "max.s"+width)
		add("($1 < $2 ? $1 : $2)", u, two(u), "min.u"+width)
		add("($1 > $2 ? $1 : $2)", u, two(u), "max.u"+width)
		add("($1 < 0 ? 0 - "+ctypes[u]+"($1) : "+ctypes[u]+"($1))", u, one(s), "abs.s"+width)
		add("0 - $1", u, one(u), "neg.s"+width)
	}
	for _, width := range []string{"16", "32", "64"} {
		b := "b" + width
		add("($1 & $2)", b, two(b), "and."+b)
		add("($1 | $2)", b, two(b), "or."+b)
		add("($1 ^ $2)", b, two(b), "xor."+b)
		add("~$1", b, one(b), "not."+b)
	}
	add("$1 && $2", "pred", two("pred"), "and.pred")
	add("$1 || $2", "pred", two("pred"), "or.pred")
	add("$1 != $2", "pred", two("pred"), "xor.pred")
	add("!$1", "pred", one("pred"), "not.pred")
	add("int64_t($1) * $2", "s64", two("s32"), "mul.wide.s32")
	add("uint64_t($1) * $2", "u64", two("u32"), "mul.wide.u32")
	add("uint32_t($1) * $2", "u32", two("u16"), "mul.wide.u16")
	add("int32_t(int64_t($1) * $2 >> 32)", "s32", two("s32"), "mul.hi.s32")
	add("uint32_t(uint64_t($1) * $2 >> 32)", "u32", two("u32"), "mul.hi.u32")
	add("bfi($1, $2, $3, $4)", "b32", []string{"b32", "b32", "u32", "u32"}, "bfi.b32")
	add("$1", "u64", one("u64"), "cvta.to.global.u64")

	add("$1 + $2", "f32", two("f32"), "add.f32")
	add("$1 - $2", "f32", two("f32"), "sub.f32")
	add("$1 * $2", "f32", two("f32"), "mul.f32")
	add("fmaf($1, $2, $3)", "f32", three("f32"), "fma.rn.f32")
	add("fma_down($1, $2, $3)", "f32", three("f32"), "fma.rm.f32")
	add("$1 / $2", "f32", two("f32"), "div.rn.f32")
	add("1.f / $1", "f32", one("f32"), "rcp.rn.f32")
	add("sqrtf($1)", "f32", one("f32"), "sqrt.rn.f32")
	add("ex2_approx($1)", "f32", one("f32"), "ex2.approx.ftz.f32")
	add("rcp_approx($1)", "f32", one("f32"), "rcp.approx.ftz.f32")
	add("min_f32($1, $2)", "f32", two("f32"), "min.f32")
	add("max_f32($1, $2)", "f32", two("f32"), "max.f32")
	add("fabsf($1)", "f32", one("f32"), "abs.f32")
	add("-$1", "f32", one("f32"), "neg.f32")
	add("copysignf($2, $1)", "f32", two("f32"), "copysign.f32")
	add("($3 ? $1 : $2)", "f32", []string{"f32", "f32", "pred"}, "selp.f32")

	for _, from := range []string{"u16", "s16", "u32", "s32", "u64", "s64"} {
		add("float($1)", "f32", one(from), "cvt.rn.f32."+from)
	}
	add("saturate($1)", "f32", one("f32"), "cvt.sat.f32.f32")
	add("from_fp16($1)", "f32", one("b16"), "cvt.f32.f16")
	add("to_fp16($1)", "b16", one("f32"), "cvt.rn.f16.f32")
	add("to_bf16($1)", "b16", one("f32"), "cvt.rn.bf16.f32")
	add("uint32_t(to_fp16($1)) << 16 | to_fp16($2)", "b32", two("f32"), "cvt.rn.f16x2.f32")
	add("uint32_t(to_bf16($1)) << 16 | to_bf16($2)", "b32", two("f32"), "cvt.rn.bf16x2.f32")
	for _, to := range []string{"u16", "s16", "u32", "s32", "u64", "s64"} {
		for _, from := range []string{"u16", "s16", "u32", "s32", "u64", "s64"} {
			add(ctypes[to]+"($1)", to, one(from), "cvt."+to+"."+from)
		}
	}
	return all
}
