package weights

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// valueOf executes a pickle that uses no storages.
func valueOf(code []byte) (any, error) { return unpickle(code, &torchArchive{}) }

func TestPickleValues(t *testing.T) {
	p := newPickler
	// Protocol 4 added these two forms of strings.
	short := append(p().op(opShortUnicode, 2).Bytes(), "\xc3\xa9."...)
	long := append(p().op(opBinUnicode8, 1, 0, 0, 0, 0, 0, 0, 0).Bytes(), "x."...)
	cases := map[string]struct {
		code []byte
		want any
	}{
		"none":             {p().op(opNone).done(), nil},
		"true":             {p().op(opNewTrue).done(), true},
		"false":            {p().op(opNewFalse).done(), false},
		"one byte":         {p().op(opBinInt1, 255).done(), int64(255)},
		"two bytes":        {p().op(opBinInt2, 1, 2).done(), int64(513)},
		"negative":         {p().int(-5).done(), int64(-5)},
		"long of 0 bytes":  {p().op(opLong1, 0).done(), int64(0)},
		"long of 1 byte":   {p().op(opLong1, 1, 0xfe).done(), int64(-2)},
		"long of 3 bytes":  {p().op(opLong1, 3, 0, 0, 0x7f).done(), int64(0x7f0000)},
		"long of 8 bytes":  {p().long(-1 << 63).done(), int64(-1 << 63)},
		"float":            {p().float(-0.1).done(), -0.1},
		"string":           {p().str("a\nb").done(), "a\nb"},
		"short unicode":    {short, "é"},
		"long unicode":     {long, "x"},
		"byte string":      {p().op(opShortBinString, 1, 'k').done(), "k"},
		"tuple":            {p().tuple(1, 2, 3).done(), []any{int64(1), int64(2), int64(3)}},
		"empty tuple":      {p().op(opEmptyTuple).done(), []any{}},
		"tuples of 1 to 3": {p().op(opNone, opTuple1, opNone, opTuple2, opNone, opNone, opTuple3).done(), []any{[]any{[]any{nil}, nil}, nil, nil}},
		"list":             {p().op(opEmptyList, opMark, opNone, opNewTrue, opAppends, opNewFalse, opAppend).done(), &[]any{nil, true, false}},
		"dict":             {p().op(opEmptyDict, opMark).str("a").int(1).op(opSetItems).str("b").int(2).op(opSetItem).done(), map[any]any{"a": int64(1), "b": int64(2)}},
		"mixed keys":       {p().op(opEmptyDict, opMark).str("a").int(1).int(2).op(opEmptyList, opSetItems).done(), map[any]any{"a": int64(1), int64(2): new([]any)}},
		"ordered dict":     {p().orderedDict().str("a").int(1).op(opSetItem).done(), map[any]any{"a": int64(1)}},
		"state of a dict":  {p().orderedDict().op(opEmptyDict).str("_metadata").orderedDict().op(opSetItem, opBuild).done(), map[any]any{}},
		"namespace": {p().global("argparse", "Namespace").op(opEmptyTuple, opNewObj, opEmptyDict).str("layers").int(6).op(opSetItem, opBuild).done(),
			map[string]any{"layers": int64(6)}},
		"empty namespace": {p().global("argparse", "Namespace").op(opEmptyTuple, opNewObj).done(), map[string]any{}},
		"stack global":    {p().str("collections").str("OrderedDict").op(opStackGlobal, opEmptyTuple, opReduce).done(), map[any]any{}},
		"memo":            {p().str("k").op(opBinPut, 7).u32(opLongBinPut, 300).op(opBinGet, 7).u32(opLongBinGet, 300).op(opTuple3).done(), []any{"k", "k", "k"}},
		"memoize":         {p().str("k").op(opMemoize, opBinGet, 0, opTuple2).done(), []any{"k", "k"}},
		"frame":           {p().op(opFrame, 2, 0, 0, 0, 0, 0, 0, 0, opNone).done(), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := valueOf(c.code)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%#v, %v; want %#v", got, err, c.want)
			}
		})
	}
}

// TestPickleRefusesEveryOtherName checks that a pickle that names a class or function that no checkpoint needs fails
// with ErrForbidden.
func TestPickleRefusesEveryOtherName(t *testing.T) {
	for _, c := range [][2]string{
		{"os", "system"}, {"posix", "system"}, {"builtins", "eval"}, {"__builtin__", "eval"}, {"builtins", "getattr"},
		{"subprocess", "Popen"}, {"torch", "load"}, {"torch.storage", "_load_from_bytes"}, {"torch", "Tensor"},
		{"collections", "OrderedDict.fromkeys"}, {"numpy.core.multiarray", "_reconstruct"}, {"", ""}, {"other", "FloatStorage"},
	} {
		full := c[0] + "." + c[1]
		byLine := newPickler().global(c[0], c[1]).op(opMark).str("true").op(opTuple, opReduce).done()
		byStack := newPickler().str(c[0]).str(c[1]).op(opStackGlobal, opEmptyTuple, opReduce).done()
		for how, code := range map[string][]byte{"GLOBAL": byLine, "STACK_GLOBAL": byStack} {
			_, err := valueOf(code)
			if !errors.Is(err, ErrForbidden) {
				t.Errorf("%s by %s gives %v", full, how, err)
				continue
			}
			wantError(t, err, fmt.Sprintf("%q", full), "only tensors are read")
		}
	}
}

func TestPickleRefusesNonsense(t *testing.T) {
	p := newPickler
	namespace := func() *pickler { return p().global("argparse", "Namespace").op(opEmptyTuple, opNewObj) }
	cases := map[string]struct {
		code []byte
		want string
	}{
		"nothing":               {nil, "cut short"},
		"no end":                {p().op(opNone).Bytes(), "cut short"},
		"no value":              {p().done(), "0 values"},
		"two values":            {p().op(opNone, opNone).done(), "2 values"},
		"mark left":             {p().op(opNone, opMark).done(), "values"},
		"unknown instruction":   {p().op(0xff).done(), "0xff"},
		"EXT1":                  {p().op(0x82, 1).done(), "0x82"},
		"INST":                  {append(p().op(opMark, 'i').Bytes(), "os\nsystem\n."...), "0x69"},
		"protocol 6":            {[]byte{opProto, 6, opNone, opStop}, "protocol 6"},
		"string of 4 GB":        {p().op(opBinUnicode, 0xff, 0xff, 0xff, 0xff, 'x').done(), "4294967295 bytes wanted"},
		"string of 2^64-1":      {p().op(opBinUnicode8, 255, 255, 255, 255, 255, 255, 255, 255).done(), "18446744073709551615 bytes wanted"},
		"frame beyond the end":  {p().op(opFrame, 255, 255, 255, 255, 255, 255, 255, 255).done(), "frame"},
		"integer of 9 bytes":    {p().op(opLong1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1).done(), "9 bytes"},
		"pop below a mark":      {p().op(opNone, opMark, opTuple1).done(), "not there"},
		"tuple without mark":    {p().op(opTuple).done(), "mark"},
		"pair of one":           {p().op(opNone, opTuple2).done(), "not there"},
		"pair across a mark":    {p().op(opNone, opMark, opNone, opTuple2, opTuple).done(), "not there"},
		"append to nothing":     {p().op(opNone, opAppend).done(), "not there"},
		"append to a dict":      {p().op(opEmptyDict, opNone, opAppend).done(), "a dict"},
		"item into a list":      {p().op(opEmptyList, opNone, opNone, opSetItem).done(), "a list"},
		"key without value":     {p().op(opEmptyDict, opMark, opNone, opSetItems).done(), "without a value"},
		"list as key":           {p().op(opEmptyDict, opEmptyList, opNone, opSetItem).done(), "key is a list"},
		"key twice":             {p().op(opEmptyDict).str("k").op(opNone, opSetItem).str("k").op(opNone, opSetItem).done(), `"k" appears twice`},
		"memo entry missing":    {p().op(opBinGet, 3).done(), "memo entry 3"},
		"memo of nothing":       {p().op(opBinPut, 3).done(), "not there"},
		"call of a number":      {p().int(3).op(opEmptyTuple, opReduce).done(), "a int is called"},
		"call without tuple":    {p().global("collections", "OrderedDict").op(opEmptyList, opReduce).done(), "with a list"},
		"dict with arguments":   {p().global("collections", "OrderedDict").tuple(1).op(opReduce).done(), "1 arguments"},
		"attributes of a list":  {p().op(opEmptyList, opEmptyDict, opBuild).done(), "a list is given attributes"},
		"attributes of a state": {namespace().op(opEmptyDict).str("a").op(opNone, opSetItem, opBuild, opEmptyDict, opBuild).done(), "a Namespace is given attributes"},
		"attribute 3":           {namespace().op(opEmptyDict).int(3).op(opNone, opSetItem, opBuild).done(), "called 3"},
		"attributes by a list":  {namespace().op(opEmptyList, opBuild).done(), "attributes by a list"},
		"class name unfinished": {append(p().op(opGlobal).Bytes(), strings.Repeat("x", 2000)...), "does not end"},
		"class name a number":   {p().int(1).int(2).op(opStackGlobal).done(), "not a short string"},
		"persistent nonsense":   {p().op(opNone, opBinPersID).done(), "persistent id"},
		"parameter of nothing":  {p().global("torch._utils", "_rebuild_parameter").op(opEmptyTuple, opReduce).done(), "_rebuild_parameter"},
		"tensor of nothing":     {p().global("torch._utils", "_rebuild_tensor_v2").op(opEmptyTuple, opReduce).done(), "0 arguments"},
		"tensor of numbers":     {p().global("torch._utils", "_rebuild_tensor_v2").tuple(1, 2, 3, 4, 5, 6).op(opReduce).done(), "are not a storage"},
		"storage not there":     {p().storage("FloatStorage", "0", 3).done(), `"data/0"`},
		"storage of -1":         {p().storage("FloatStorage", "0", -1).done(), "persistent id"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := valueOf(c.code)
			wantError(t, err, c.want)
		})
	}
}

// TestPickleIsBounded checks pickles with many values, each of which takes a few bytes in the pickle and far more in
// memory. unpickle must not take more memory than the function bounded allows. A pickle that is too long, or has too
// many instructions, must be refused.
func TestPickleIsBounded(t *testing.T) {
	const pairs = 1 << 14
	dict := newPickler().global("collections", "OrderedDict").op(opBinPut, 0).Bytes()
	for name, c := range map[string]struct{ begin, repeated []byte }{
		"values":          {newPickler().Bytes(), []byte{opNone}},
		"marks":           {newPickler().Bytes(), []byte{opMark}},
		"dicts":           {newPickler().Bytes(), []byte{opEmptyDict}},
		"dicts of one":    {newPickler().Bytes(), []byte{opEmptyDict, opNone, opNone, opSetItem}},
		"lists of one":    {newPickler().Bytes(), []byte{opEmptyList, opNone, opAppend}},
		"nested lists":    {newPickler().op(opEmptyList, opMemoize).Bytes(), []byte{opEmptyList, opAppend, opBinGet, 0}},
		"tuples":          {newPickler().op(opNone).Bytes(), []byte{opTuple1}},
		"ordered dicts":   {dict, []byte{opBinGet, 0, opEmptyTuple, opReduce}},
		"memoized values": {newPickler().op(opNone).Bytes(), []byte{opMemoize}},
	} {
		code := append(slices.Clone(c.begin), bytes.Repeat(c.repeated, pairs)...)
		t.Run(name, func(t *testing.T) { bounded(t, len(code), func() { valueOf(code) }) })
	}
	code := append(newPickler().Bytes(), bytes.Repeat([]byte{opNone}, maxInstructions)...)
	if _, err := valueOf(code); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d instructions: %v", maxInstructions, err)
	}
	archive := writeFile(t, t.TempDir(), "big.pt", zipOf(make([]byte, maxPickle+1), nil))
	if _, err := Open(archive); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a pickle of %d bytes: %v", maxPickle+1, err)
	}
}

func FuzzPickle(f *testing.F) {
	f.Add(newPickler().op(opEmptyDict, opMark).str("a").float(1).op(opSetItems).done())
	f.Add(newPickler().global("argparse", "Namespace").op(opEmptyTuple, opNewObj, opEmptyDict, opBuild).done())
	f.Add(newPickler().tensor("FloatStorage", "0", 2, 3).done())
	f.Add(newPickler().str("collections").str("OrderedDict").op(opStackGlobal, opMemoize, opEmptyTuple, opReduce).done())
	f.Add(newPickler().op(opEmptyList, opMemoize, opBinGet, 0, opAppend).done())
	f.Add(newPickler().global("os", "system").str("true").op(opTuple1, opReduce).done())
	f.Fuzz(func(t *testing.T, code []byte) {
		var v any
		var err error
		bounded(t, len(code), func() { v, err = valueOf(code) })
		if name := kind(v); err == nil && strings.ContainsAny(name, "*.[") {
			t.Errorf("a %s is no value of a checkpoint", name)
		}
	})
}
