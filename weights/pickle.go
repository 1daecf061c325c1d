package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Limits of the unpickler. A checkpoint's pickle needs a fraction of each limit: about 50 instructions and 200 bytes
// for each tensor. The execution of an instruction takes less than 1 KiB of memory besides the bytes of its strings.
const (
	maxPickle       = 16 << 20 // maximum size of a pickle in bytes
	maxInstructions = 1 << 20
	maxGlobal       = 256 // maximum number of bytes in the name of a module or class
)

var (
	// ErrForbidden is wrapped by the error for a pickle that names a class or function other than the few that
	// checkpoints need.
	ErrForbidden = errors.New("only tensors are read; save the state dict alone")
	// ErrTooLarge is wrapped by the error for a pickle that exceeds a limit. The limits are far above the needs of any
	// checkpoint.
	ErrTooLarge = errors.New("too large for a checkpoint's pickle")
)

// callable is a class or function that a pickle may call.
type callable func(args []any) (any, error)

// unpickler executes a pickle. It can build only None (nil), booleans, numbers, strings, tuples []any, lists *[]any,
// dicts map[any]any, Namespaces map[string]any, and tensors, storages and callables of its archive. If the pickle
// refers to one value several times, the results share the value. err keeps the first error. The instruction in which
// it occurs is executed to its end, with zeros for operands that cannot be read. No further instruction is executed.
type unpickler struct {
	archive *torchArchive
	code    []byte
	at      int // index of the next byte in code
	stack   []any
	marks   []int // length of the stack at each mark, the first mark first
	memo    map[uint32]any
	err     error
}

// unpickle executes code and returns the single value that it leaves on the stack. The error of an instruction contains
// its offset.
func unpickle(code []byte, a *torchArchive) (any, error) {
	u := &unpickler{archive: a, code: code, memo: make(map[uint32]any)}
	for n := 1; ; n++ {
		start := u.at
		op := byte(u.number(1))
		if u.err == nil && op == opStop {
			break
		}
		if n > maxInstructions {
			u.failf("more than %d instructions: %w", maxInstructions, ErrTooLarge)
		} else {
			u.step(op)
		}
		if u.err != nil {
			return nil, fmt.Errorf("pickle offset %d: %w", start, u.err)
		}
	}
	if len(u.stack) != 1 || len(u.marks) != 0 {
		return nil, fmt.Errorf("the pickle leaves %d values instead of one", len(u.stack))
	}
	return u.stack[0], nil
}

// fail sets the error, unless one is already set or err is nil.
func (u *unpickler) fail(err error) {
	if u.err == nil {
		u.err = err
	}
}

func (u *unpickler) failf(format string, args ...any) { u.fail(fmt.Errorf(format, args...)) }

// step executes one instruction. It refuses instructions that no checkpoint needs, such as those with which pickle
// protocol 0 stores numbers and strings as text.
func (u *unpickler) step(op byte) {
	switch op {
	case opProto:
		if version := u.number(1); version > 5 {
			u.failf("pickle protocol %d is not known", version)
		}
	case opFrame:
		if length, left := u.number(8), len(u.code)-u.at; length > uint64(left) {
			u.failf("%w: a frame of %d bytes, %d left", ErrTruncated, length, left)
		}
	case opNone, opNewTrue, opNewFalse, opBinInt, opBinInt1, opBinInt2, opLong1, opBinFloat,
		opShortBinString, opShortUnicode, opBinUnicode, opBinUnicode8:
		u.scalar(op)
	case opMark:
		u.marks = append(u.marks, len(u.stack))
	case opEmptyTuple:
		u.push([]any{})
	case opTuple:
		u.push(slices.Clone(u.takeMark()))
	case opTuple1, opTuple2, opTuple3:
		u.push(slices.Clone(u.take(int(op-opTuple1) + 1)))
	case opEmptyList:
		u.push(new([]any))
	case opAppend:
		u.appendItems(u.take(1))
	case opAppends:
		u.appendItems(u.takeMark())
	case opEmptyDict:
		u.push(map[any]any{})
	case opSetItem:
		u.setItems(u.take(2))
	case opSetItems:
		u.setItems(u.takeMark())
	case opBinGet, opLongBinGet, opBinPut, opLongBinPut, opMemoize:
		u.remember(op)
	case opGlobal:
		module := u.line()
		u.global(module, u.line())
	case opStackGlobal:
		u.stackGlobal()
	case opReduce, opNewObj:
		u.call()
	case opBuild:
		u.build()
	case opBinPersID:
		u.pushResult(u.archive.persistent(u.take(1)[0]))
	default:
		u.failf("instruction 0x%02x is not one that a checkpoint needs", op)
	}
}

// bytes reads the next n bytes of the code.
func (u *unpickler) bytes(n uint64) []byte {
	if left := len(u.code) - u.at; n > uint64(left) {
		u.failf("%w: %d bytes wanted, %d left", ErrTruncated, n, left)
		return nil
	}
	b := u.code[u.at : u.at+int(n)]
	u.at += int(n)
	return b
}

// number reads an unsigned little-endian number of n bytes.
func (u *unpickler) number(n uint64) uint64 {
	var full [8]byte
	copy(full[:], u.bytes(n))
	return binary.LittleEndian.Uint64(full[:])
}

// line reads the bytes up to the next line feed. It sets the error if there is none after at most maxGlobal bytes.
func (u *unpickler) line() string {
	window := u.code[u.at:min(len(u.code), u.at+maxGlobal+1)]
	end := bytes.IndexByte(window, '\n')
	if end < 0 {
		u.failf("the name of a class does not end")
		return ""
	}
	u.at += end + 1
	return string(window[:end])
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pushResult(v any, err error) {
	u.fail(err)
	u.push(v)
}

// above returns the number of values above the last mark.
func (u *unpickler) above() int {
	if len(u.marks) == 0 {
		return len(u.stack)
	}
	return len(u.stack) - u.marks[len(u.marks)-1]
}

// take pops the last n values and returns them in the order in which they were pushed. The returned slice is valid
// until the next push.
func (u *unpickler) take(n int) []any {
	if n > u.above() {
		u.failf("takes a value that is not there")
		return make([]any, n)
	}
	values := u.stack[len(u.stack)-n:]
	u.stack = u.stack[:len(u.stack)-n]
	return values
}

// takeMark pops the last mark and all values above it, and returns these values.
func (u *unpickler) takeMark() []any {
	if len(u.marks) == 0 {
		u.failf("takes values up to a mark that is not there")
		return nil
	}
	values := u.take(u.above())
	u.marks = u.marks[:len(u.marks)-1]
	return values
}

// top returns the last value without popping it.
func (u *unpickler) top() any {
	v := u.take(1)[0]
	u.push(v)
	return v
}

func (u *unpickler) scalar(op byte) {
	switch op {
	case opNone:
		u.push(nil)
	case opNewTrue, opNewFalse:
		u.push(op == opNewTrue)
	case opBinInt1:
		u.push(int64(u.number(1)))
	case opBinInt2:
		u.push(int64(u.number(2)))
	case opBinInt:
		u.push(int64(int32(u.number(4))))
	case opLong1:
		size := u.number(1)
		if size > 8 {
			u.failf("an integer of %d bytes is too large", size)
			return
		}
		// The number is in two's complement. Shifting it left and then right extends its sign.
		unused := 64 - 8*size
		u.push(int64(u.number(size)<<unused) >> unused)
	case opBinFloat:
		u.push(math.Float64frombits(bits.ReverseBytes64(u.number(8))))
	case opShortBinString, opShortUnicode:
		u.push(string(u.bytes(u.number(1))))
	case opBinUnicode:
		u.push(string(u.bytes(u.number(4))))
	case opBinUnicode8:
		u.push(string(u.bytes(u.number(8))))
	}
}

// appendItems adds items to the list on top of the stack.
func (u *unpickler) appendItems(items []any) {
	list, ok := u.top().(*[]any)
	if !ok {
		u.failf("items are added to a %s", kind(u.top()))
		return
	}
	*list = append(*list, items...)
}

// setItems adds alternating keys and values to the dict on top of the stack. It refuses keys other than strings,
// numbers, booleans and None, and keys that are already in the dict.
func (u *unpickler) setItems(items []any) {
	dict, ok := u.top().(map[any]any)
	if !ok {
		u.failf("items are set in a %s", kind(u.top()))
		return
	}
	if len(items)%2 != 0 {
		u.failf("a dict has a key without a value")
		return
	}
	for pair := range slices.Chunk(items, 2) {
		key := pair[0]
		switch key.(type) {
		case string, int64, float64, bool, nil:
		default:
			u.failf("a dict key is a %s", kind(key))
			return
		}
		if _, taken := dict[key]; taken {
			u.failf("the dict key %.80q appears twice", fmt.Sprint(key))
		}
		dict[key] = pair[1]
	}
}

// remember executes the instructions for the memo, which stores values for later use.
func (u *unpickler) remember(op byte) {
	index := uint32(len(u.memo))
	switch op {
	case opBinGet, opBinPut:
		index = uint32(u.number(1))
	case opLongBinGet, opLongBinPut:
		index = uint32(u.number(4))
	}
	if op != opBinGet && op != opLongBinGet {
		u.memo[index] = u.top()
		return
	}
	v, ok := u.memo[index]
	if !ok {
		u.failf("memo entry %d is not there", index)
	}
	u.push(v)
}

// stackGlobal executes STACK_GLOBAL: it pops the module and the name of a class or function.
func (u *unpickler) stackGlobal() {
	operands := u.take(2)
	module, ok := operands[0].(string)
	name, ok2 := operands[1].(string)
	if !ok || !ok2 || len(module) > maxGlobal || len(name) > maxGlobal {
		u.failf("the name of a class is not a short string")
	}
	u.global(module, name)
}

// global pushes the class or function module.name if tensors need it; see torchArchive.global.
func (u *unpickler) global(module, name string) { u.pushResult(u.archive.global(module, name)) }

// call executes REDUCE and NEWOBJ: it pops a callable and the tuple of its arguments, and pushes the result of the
// call.
func (u *unpickler) call() {
	operands := u.take(2)
	function, ok := operands[0].(callable)
	args, ok2 := operands[1].([]any)
	if !ok || !ok2 {
		u.failf("a %s is called with a %s", kind(operands[0]), kind(operands[1]))
		return
	}
	u.pushResult(function(args))
}

// build executes BUILD, which sets the attributes of a new object. It ignores attributes of a dict.
func (u *unpickler) build() {
	state, target := u.take(1)[0], u.top()
	attributes, ok := state.(map[any]any)
	_, isDict := target.(map[any]any)
	namespace, isNamespace := target.(map[string]any)
	switch {
	case ok && isDict: // ignored: the versions of a state dict's modules
	case ok && isNamespace && len(namespace) == 0:
		for key, value := range attributes {
			name, ok := key.(string)
			if !ok {
				u.failf("an attribute is called %v", key)
			}
			namespace[name] = value
		}
	default:
		u.failf("a %s is given attributes by a %s", kind(target), kind(state))
	}
}

// kind returns the Python type of a value, for messages.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "None"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case []any:
		return "tuple"
	case *[]any:
		return "list"
	case map[any]any:
		return "dict"
	case map[string]any:
		return "Namespace"
	case *Tensor:
		return "tensor"
	case storageClass:
		return "storage class"
	case *storage:
		return "storage"
	case callable:
		return "function"
	}
	return fmt.Sprintf("%T", v)
}

// The opcodes of Python's pickle protocols 0 to 5 that a checkpoint may use.
const (
	opMark           = '('
	opStop           = '.'
	opBinFloat       = 'G'
	opBinInt         = 'J'
	opBinInt1        = 'K'
	opBinInt2        = 'M'
	opNone           = 'N'
	opBinPersID      = 'Q'
	opReduce         = 'R'
	opShortBinString = 'U'
	opBinUnicode     = 'X'
	opEmptyList      = ']'
	opAppend         = 'a'
	opBuild          = 'b'
	opGlobal         = 'c'
	opAppends        = 'e'
	opBinGet         = 'h'
	opLongBinGet     = 'j'
	opBinPut         = 'q'
	opLongBinPut     = 'r'
	opSetItem        = 's'
	opTuple          = 't'
	opSetItems       = 'u'
	opEmptyDict      = '}'
	opEmptyTuple     = ')'
	opProto          = 0x80
	opNewObj         = 0x81
	opTuple1         = 0x85
	opTuple2         = 0x86
	opTuple3         = 0x87
	opNewTrue        = 0x88
	opNewFalse       = 0x89
	opLong1          = 0x8a
	opShortUnicode   = 0x8c
	opBinUnicode8    = 0x8d
	opStackGlobal    = 0x93
	opMemoize        = 0x94
	opFrame          = 0x95
)
