// Package hostsim runs the CUDA kernels of kernels/cuda/src on a machine
// without a GPU, so that tests find wrong indices, missing barriers and reads
// outside a buffer. A host compiler builds the kernel files with a small
// simulator, and the result runs as a process that this package talks to. It
// says nothing about speed, and knows no operation and no model.
//
// One block runs at a time, its threads as fibers in an order that SetOrder
// chooses. A thread runs ahead of the others until a barrier or an operation
// of its warp holds it back. Memory is filled with NaN before use and ends at
// unreadable pages; copies by cp.async land as late as the kernel allows, or
// at once, by the order's parity. Sums of mma are rounded once for 16
// products, which hardware does a little differently.
package hostsim

import (
	"bufio"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed sim/*.h sim/*.cpp
var simulator embed.FS

// ErrNoCompiler is in the chain of Build's error where no C++ compiler is
// installed.
var ErrNoCompiler = errors.New("no C++ compiler found (g++, clang++ or c++)")

// Build compiles the simulator and those kernel files into a program in dir,
// and returns its path. Headers are looked for in include.
func Build(dir, include string, kernels ...string) (string, error) {
	compiler := ""
	for _, name := range []string{"g++", "clang++", "c++"} {
		if path, err := exec.LookPath(name); err == nil {
			compiler = path
			break
		}
	}
	if compiler == "" {
		return "", ErrNoCompiler
	}
	program := filepath.Join(dir, "hostsim")
	args := []string{
		"-std=c++17", "-O2", "-DHOSTSIM", "-Wno-unknown-pragmas",
		"-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error",
		"-I" + dir, "-I" + include, "-o", program, "-x", "c++",
	}
	files, err := simulator.ReadDir("sim")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		text, err := simulator.ReadFile("sim/" + f.Name())
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, f.Name())
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return "", fmt.Errorf("simulator: %w", err)
		}
		if filepath.Ext(path) == ".cpp" {
			args = append(args, path)
		}
	}
	if out, err := exec.Command(compiler, append(args, kernels...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", compiler, err, out)
	}
	return program, nil
}

// A Device is one simulated GPU. After an error it is of no more use: every
// later call returns that error. It belongs to one goroutine at a time.
type Device struct {
	process *exec.Cmd
	to      *bufio.Writer
	pipe    io.Closer
	from    *bufio.Reader
	err     error
}

// Start runs a program that Build has made.
func Start(program string) (*Device, error) {
	process := exec.Command(program)
	process.Stderr = os.Stderr
	to, err := process.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	from, err := process.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	return &Device{process: process, to: bufio.NewWriter(to), pipe: to, from: bufio.NewReader(from)}, nil
}

// Close ends the process.
func (d *Device) Close() error {
	if err := d.pipe.Close(); err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	if err := d.process.Wait(); err != nil && d.err == nil {
		return fmt.Errorf("simulator: %w", err)
	}
	return nil
}

// Alloc gives the address of that many bytes of device memory, which hold
// NaN in every floating-point type.
func (d *Device) Alloc(bytes int) (uint64, error) {
	d.ask('A', uint64(bytes))
	return d.u64(), d.err
}

// Free gives memory back.
func (d *Device) Free(address uint64) error {
	d.ask('F', address)
	return d.err
}

// Write copies to the device.
func (d *Device) Write(address uint64, bytes []byte) error {
	d.ask('W', address, uint64(len(bytes)), bytes)
	return d.err
}

// Read copies from the device.
func (d *Device) Read(bytes []byte, address uint64) error {
	d.ask('R', address, uint64(len(bytes)))
	d.receive(bytes)
	return d.err
}

// SetOrder chooses how the threads of the launches that follow are scheduled:
// 0 runs the first warp ahead, 1 the last, any other number seeds a random
// order. Copies by cp.async land late in even orders and at once in odd ones.
func (d *Device) SetOrder(seed uint64) error {
	d.ask('S', seed)
	return d.err
}

// Launch runs a kernel over a grid of blocks of that many threads, with so
// many bytes of dynamic shared memory. A parameter is a uint64 (a pointer),
// an int32 or a float32. Deadlocks, accesses outside memory and copies left
// in flight are errors.
func (d *Device) Launch(kernel string, grid [3]int, threads, shared int, params ...any) error {
	slots := make([]byte, 8*len(params))
	for i, p := range params {
		slot := slots[8*i:]
		switch v := p.(type) {
		case uint64:
			binary.LittleEndian.PutUint64(slot, v)
		case int32:
			binary.LittleEndian.PutUint32(slot, uint32(v))
		case float32:
			binary.LittleEndian.PutUint32(slot, math.Float32bits(v))
		default:
			return fmt.Errorf("launch of %s: parameter %d is a %T", kernel, i, p)
		}
	}
	d.ask('L', kernel, uint32(grid[0]), uint32(grid[1]), uint32(grid[2]), uint32(threads), uint32(shared), uint32(len(params)), slots)
	return d.err
}

// Kernels lists the kernels that the program was built with, and the most
// threads that each takes in a block.
func (d *Device) Kernels() (map[string]int, error) {
	d.ask('K')
	list := map[string]int{}
	for n := d.u32(); n > 0 && d.err == nil; n-- {
		name := d.text()
		list[name] = int(d.u32())
	}
	return list, d.err
}

// ask sends a command and reads the status of its answer.
func (d *Device) ask(command byte, fields ...any) {
	if d.err != nil {
		return
	}
	message := []byte{command}
	for _, f := range fields {
		switch v := f.(type) {
		case uint32:
			message = binary.LittleEndian.AppendUint32(message, v)
		case uint64:
			message = binary.LittleEndian.AppendUint64(message, v)
		case string:
			message = append(binary.LittleEndian.AppendUint32(message, uint32(len(v))), v...)
		case []byte:
			message = append(message, v...)
		}
	}
	if _, err := d.to.Write(message); err != nil {
		d.err = fmt.Errorf("simulator: %w", err)
		return
	}
	if err := d.to.Flush(); err != nil {
		d.err = fmt.Errorf("simulator: %w", err)
		return
	}
	status := []byte{0}
	d.receive(status)
	if d.err == nil && status[0] != 0 {
		text := d.text()
		if d.err == nil {
			d.err = errors.New(text)
		}
	}
}

func (d *Device) receive(to []byte) {
	if d.err != nil {
		return
	}
	if _, err := io.ReadFull(d.from, to); err != nil {
		d.err = fmt.Errorf("the simulator has ended: %w", err)
	}
}

func (d *Device) u32() uint32 {
	var b [4]byte
	d.receive(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (d *Device) u64() uint64 {
	var b [8]byte
	d.receive(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (d *Device) text() string {
	const longest = 4096
	n := d.u32()
	if n > longest {
		d.err = fmt.Errorf("the simulator sends a text of %d bytes", n)
		return ""
	}
	b := make([]byte, n)
	d.receive(b)
	return string(b)
}
