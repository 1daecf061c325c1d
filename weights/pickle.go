package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Limits of the unpickler. A checkpoint's pickle needs a fraction of each.
const (
	maxPickle = 256 << 20 // bytes
	maxStack  = 1 << 20   // values
	maxMemo   = 1 << 22   // values
	maxGlobal = 256       // bytes of a module's or a class's name
)

// ErrForbidden is what errors wrap when a pickle names a class or function other than the few that tensors are made of.
var ErrForbidden = errors.New("a checkpoint has no business with it")

// host says what the globals and persistent ids of a pickle stand for.
type host interface {
	// global returns what module.name stands for: a callable that REDUCE and NEWOBJ may call, or any other value. It
	// must wrap ErrForbidden for the rest.
	global(module, name string) (any, error)
	// persistent returns the value with the persistent id.
	persistent(id any) (any, error)
}

// callable makes a value from the arguments in a pickle.
type callable func(args []any) (any, error)

// unpickler executes a pickle that can build numbers, strings, lists, tuples, dicts and what its host allows, and
// nothing else.
type unpickler struct {
	host  host
	code  []byte
	at    int // of the next byte in code
	stack []any
	marks []int // lengths of stack
	memo  map[uint32]any
}

// unpickle executes code and returns the one value that it leaves. Errors give the offset of the instruction.
func unpickle(code []byte, h host) (any, error) {
	u := &unpickler{host: h, code: code, memo: make(map[uint32]any)}
	for {
		start := u.at
		op, err := u.bytes(1)
		if err != nil {
			return nil, err
		}
		if op[0] == opStop {
			break
		}
		if err := u.step(op[0]); err != nil {
			return nil, fmt.Errorf("pickle offset %d: %w", start, err)
		}
		if len(u.stack)+len(u.marks) > maxStack || len(u.memo) > maxMemo {
			return nil, fmt.Errorf("pickle offset %d: more values at once than any checkpoint has", start)
		}
	}
	if len(u.stack) != 1 || len(u.marks) != 0 {
		return nil, fmt.Errorf("the pickle leaves %d values instead of one", len(u.stack))
	}
	return u.stack[0], nil
}

// step executes one instruction.
func (u *unpickler) step(op byte) error {
	switch op {
	case opProto, opFrame:
		return u.header(op)
	case opMark:
		u.marks = append(u.marks, len(u.stack))
		return nil
	case opPop:
		_, err := u.pop()
		return err
	case opPopMark:
		_, err := u.popMark()
		return err
	case opNone, opNewTrue, opNewFalse, opBinInt, opBinInt1, opBinInt2, opLong1, opBinFloat:
		return u.scalar(op)
	case opShortBinString, opShortUnicode, opBinUnicode, opBinUnicode8:
		return u.text(op)
	case opEmptyTuple, opEmptyList, opEmptyDict, opTuple, opList, opDict, opTuple1, opTuple2, opTuple3:
		return u.container(op)
	case opAppend, opAppends, opSetItem, opSetItems:
		return u.fill(op)
	case opBinGet, opLongBinGet, opBinPut, opLongBinPut, opMemoize:
		return u.remember(op)
	case opGlobal, opStackGlobal, opInst:
		return u.global(op)
	case opReduce, opNewObj:
		return u.call()
	case opBuild:
		return u.build()
	case opBinPersID:
		id, err := u.pop()
		if err != nil {
			return err
		}
		return u.pushResult(u.host.persistent(id))
	}
	return fmt.Errorf("instruction 0x%02x is none that a checkpoint needs", op)
}

// bytes takes the next n bytes of the code.
func (u *unpickler) bytes(n uint64) ([]byte, error) {
	if left := len(u.code) - u.at; n > uint64(left) {
		return nil, fmt.Errorf("pickle offset %d: %w: %d bytes wanted, %d left", u.at, ErrTruncated, n, left)
	}
	b := u.code[u.at : u.at+int(n)]
	u.at += int(n)
	return b, nil
}

// number takes an unsigned little-endian number of n bytes.
func (u *unpickler) number(n int) (uint64, error) {
	b, err := u.bytes(uint64(n))
	if err != nil {
		return 0, err
	}
	var full [8]byte
	copy(full[:], b)
	return binary.LittleEndian.Uint64(full[:]), nil
}

// line takes the bytes up to the next line feed.
func (u *unpickler) line() (string, error) {
	window := u.code[u.at:min(len(u.code), u.at+maxGlobal+1)]
	end := bytes.IndexByte(window, '\n')
	if end < 0 {
		return "", errors.New("the name of a class does not end")
	}
	u.at += end + 1
	return string(window[:end]), nil
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pushResult(v any, err error) error {
	if err == nil {
		u.push(v)
	}
	return err
}

var errEmptyStack = errors.New("takes a value that is not there")

// floor is the stack length that values above the last mark start at.
func (u *unpickler) floor() int {
	if len(u.marks) == 0 {
		return 0
	}
	return u.marks[len(u.marks)-1]
}

func (u *unpickler) pop() (any, error) {
	if len(u.stack) <= u.floor() {
		return nil, errEmptyStack
	}
	v := u.stack[len(u.stack)-1]
	u.stack = u.stack[:len(u.stack)-1]
	return v, nil
}

// popN takes the last n values, in the order in which they were pushed. They are valid until the next push.
func (u *unpickler) popN(n int) ([]any, error) {
	if len(u.stack)-n < u.floor() {
		return nil, errEmptyStack
	}
	values := u.stack[len(u.stack)-n:]
	u.stack = u.stack[:len(u.stack)-n]
	return values, nil
}

// popMark takes the values above the last mark, and the mark.
func (u *unpickler) popMark() ([]any, error) {
	if len(u.marks) == 0 {
		return nil, errors.New("takes values up to a mark that is not there")
	}
	values, err := u.popN(len(u.stack) - u.floor())
	u.marks = u.marks[:len(u.marks)-1]
	return values, err
}

func (u *unpickler) top() (any, error) {
	if len(u.stack) <= u.floor() {
		return nil, errEmptyStack
	}
	return u.stack[len(u.stack)-1], nil
}

// header handles the instructions that only describe the pickle.
func (u *unpickler) header(op byte) error {
	if op == opFrame {
		length, err := u.number(8)
		if err == nil && length > uint64(len(u.code)-u.at) {
			err = fmt.Errorf("%w: a frame of %d bytes, %d left", ErrTruncated, length, len(u.code)-u.at)
		}
		return err
	}
	version, err := u.number(1)
	if err == nil && version > 5 {
		err = fmt.Errorf("pickle protocol %d is not known", version)
	}
	return err
}

func (u *unpickler) scalar(op byte) error {
	switch op {
	case opNone:
		u.push(nil)
	case opNewTrue, opNewFalse:
		u.push(op == opNewTrue)
	case opBinInt1:
		n, err := u.number(1)
		return u.pushResult(int64(n), err)
	case opBinInt2:
		n, err := u.number(2)
		return u.pushResult(int64(n), err)
	case opBinInt:
		n, err := u.number(4)
		return u.pushResult(int64(int32(n)), err)
	case opLong1:
		size, err := u.number(1)
		if err != nil {
			return err
		}
		if size > 8 {
			return fmt.Errorf("an integer of %d bytes is too large", size)
		}
		n, err := u.number(int(size))
		// The number is in two's complement: shifting up and down again extends its sign.
		unused := 64 - 8*size
		return u.pushResult(int64(n<<unused)>>unused, err)
	case opBinFloat:
		b, err := u.bytes(8)
		if err != nil {
			return err
		}
		u.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	}
	return nil
}

func (u *unpickler) text(op byte) error {
	width := 1
	switch op {
	case opBinUnicode:
		width = 4
	case opBinUnicode8:
		width = 8
	}
	length, err := u.number(width)
	if err != nil {
		return err
	}
	b, err := u.bytes(length)
	return u.pushResult(string(b), err)
}

func (u *unpickler) container(op byte) error {
	var items []any
	var err error
	switch op {
	case opTuple, opList, opDict:
		items, err = u.popMark()
	case opTuple1, opTuple2, opTuple3:
		items, err = u.popN(int(op-opTuple1) + 1)
	}
	if err != nil {
		return err
	}
	switch op {
	case opEmptyList, opList:
		u.push(&pickleList{items: append([]any(nil), items...)})
	case opEmptyDict, opDict:
		d := newPickleDict()
		if err := setItems(d, items); err != nil {
			return err
		}
		u.push(d)
	default:
		u.push(&pickleTuple{items: append([]any(nil), items...)})
	}
	return nil
}

// fill handles what adds to the list or dict below its operands.
func (u *unpickler) fill(op byte) error {
	var items []any
	var err error
	switch op {
	case opAppend:
		items, err = u.popN(1)
	case opSetItem:
		items, err = u.popN(2)
	default:
		items, err = u.popMark()
	}
	if err != nil {
		return err
	}
	target, err := u.top()
	if err != nil {
		return err
	}
	switch target := target.(type) {
	case *pickleList:
		if op == opAppend || op == opAppends {
			target.items = append(target.items, items...)
			return nil
		}
	case *pickleDict:
		if op == opSetItem || op == opSetItems {
			return setItems(target, items)
		}
	}
	return fmt.Errorf("items are added to a %s", kind(target))
}

// setItems adds alternating keys and values.
func setItems(d *pickleDict, items []any) error {
	if len(items)%2 != 0 {
		return errors.New("a dict has a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		if err := d.set(items[i], items[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// remember handles the memo, in which a pickle keeps values that it uses again.
func (u *unpickler) remember(op byte) error {
	index := uint64(len(u.memo))
	if op != opMemoize {
		width := 1
		if op == opLongBinGet || op == opLongBinPut {
			width = 4
		}
		var err error
		if index, err = u.number(width); err != nil {
			return err
		}
	}
	if op == opBinGet || op == opLongBinGet {
		v, ok := u.memo[uint32(index)]
		if !ok {
			return fmt.Errorf("memo entry %d is not there", index)
		}
		u.push(v)
		return nil
	}
	v, err := u.top()
	if err == nil {
		u.memo[uint32(index)] = v
	}
	return err
}

// global handles the instructions that name a class or function.
func (u *unpickler) global(op byte) error {
	var module, name string
	if op == opStackGlobal {
		operands, err := u.popN(2)
		if err != nil {
			return err
		}
		var ok, ok2 bool
		module, ok = operands[0].(string)
		name, ok2 = operands[1].(string)
		if !ok || !ok2 || len(module) > maxGlobal || len(name) > maxGlobal {
			return errors.New("the name of a class is not a short string")
		}
	} else {
		var err error
		if module, err = u.line(); err == nil {
			name, err = u.line()
		}
		if err != nil {
			return err
		}
	}
	v, err := u.host.global(module, name)
	if err == nil && op == opInst {
		err = fmt.Errorf("the old instruction INST makes a %s.%s", module, name)
	}
	return u.pushResult(v, err)
}

// call handles REDUCE and NEWOBJ: a callable and the tuple of its arguments.
func (u *unpickler) call() error {
	operands, err := u.popN(2)
	if err != nil {
		return err
	}
	function, ok := operands[0].(callable)
	args, ok2 := operands[1].(*pickleTuple)
	if !ok || !ok2 {
		return fmt.Errorf("a %s is called with a %s", kind(operands[0]), kind(operands[1]))
	}
	return u.pushResult(function(args.items))
}

// build handles BUILD, which gives a new object its attributes.
func (u *unpickler) build() error {
	state, err := u.pop()
	if err != nil {
		return err
	}
	target, err := u.top()
	if err != nil {
		return err
	}
	attributes, ok := state.(*pickleDict)
	switch target := target.(type) {
	case *pickleDict:
		// The state of an OrderedDict is the versions of a state dict's modules: of no use here.
		if ok {
			return nil
		}
	case *pickleNamespace:
		if ok && target.attributes == nil {
			target.attributes = attributes
			return nil
		}
	}
	return fmt.Errorf("a %s is given attributes by a %s", kind(target), kind(state))
}
