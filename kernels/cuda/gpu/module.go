package gpu

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"seqembed/kernels/cuda/driver"
)

// Image is a PTX module.
type Image struct {
	Name    string
	ISA     string                 // PTX ISA version, for example "7.0"
	Kernels []string               // names of its functions
	Text    func() ([]byte, error) // returns the PTX, which ends with a zero byte
}

// toolkits maps each PTX ISA version to the first CUDA release that reads it and that release's driver branch (table
// "PTX Release History" of NVIDIA's PTX ISA document). A release is 1000 · major + 10 · minor, as in
// cuDriverGetVersion.
var toolkits = map[string]struct{ cuda, branch int }{
	"7.0": {11000, 450}, "7.1": {11010, 455}, "7.2": {11020, 460}, "7.3": {11030, 465}, "7.4": {11040, 470},
	"7.5": {11050, 495}, "7.6": {11060, 510}, "7.7": {11070, 515}, "7.8": {11080, 520},
	"8.0": {12000, 525}, "8.1": {12010, 530}, "8.2": {12020, 535}, "8.3": {12030, 545}, "8.4": {12040, 550},
	"8.5": {12050, 555}, "8.6": {12070, 565}, "8.7": {12080, 570}, "8.8": {12090, 575},
}

// Version formats a version as returned by cuDriverGetVersion, for example "12.4".
func Version(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// CheckDriver returns an error if a driver of the given version cannot read one of the images.
func CheckDriver(version int, images []Image) error {
	for _, i := range images {
		if t, ok := toolkits[i.ISA]; !ok || version < t.cuda {
			return driver.Unavailable("the NVIDIA driver is too old: "+
				"it supports CUDA %s, and the kernels (PTX %s) need CUDA %s, driver %d or newer", Version(version), i.ISA, Version(t.cuda), t.branch)
		}
	}
	return nil
}

// defaultShared is the number of bytes of dynamic shared memory that a block may use without a call of
// cuFuncSetAttribute.
const defaultShared = 48 << 10

// Kernel is a kernel on the device, with the size of its blocks.
type Kernel struct {
	Name          string
	function      driver.Handle
	block, shared int
}

// Kernel returns a kernel. The arguments block and shared are the number of threads and the bytes of dynamic shared
// memory of each block. Each call for the same name must pass the same values. The driver compiles a module when one of
// its kernels is first used, so a program waits only for the modules that it needs. If several images contain the
// kernel, the first is used.
func (c *Context) Kernel(name string, block, shared int) Kernel {
	if k, ok := c.kernels[name]; ok || c.Err != nil {
		return k
	}
	i := slices.IndexFunc(c.images, func(i Image) bool { return slices.Contains(i.Kernels, name) })
	if i < 0 {
		c.Err = fmt.Errorf("this build has no kernel %s", name)
		return Kernel{}
	}
	module, err := c.module(c.images[i])
	k := Kernel{Name: name, block: block, shared: shared}
	if err == nil {
		err = c.ModuleGetFunction(&k.function, module, cString(name)).Err("cuModuleGetFunction of %s", name)
	}
	if err == nil && shared > defaultShared {
		err = c.FuncSetAttribute(k.function, driver.FunctionMaxShared, int32(shared)).
			Err("cuFuncSetAttribute of %s to %d bytes of shared memory", name, shared)
	}
	if c.Err = err; err == nil {
		c.kernels[name] = k
	}
	return k
}

// module returns the module of an image. The first call for an image loads it.
func (c *Context) module(i Image) (module driver.Handle, err error) {
	if module, ok := c.loaded[i.Name]; ok {
		return module, nil
	}
	text, err := i.Text()
	if err != nil {
		return 0, err
	}
	// The log is in pinned memory, so that the slice values contains no pointer to Go memory.
	clear(c.log.Bytes)
	keys := []int32{driver.JITErrorLog, driver.JITErrorLogBytes}
	values := []uintptr{uintptr(c.log.At), uintptr(len(c.log.Bytes))}
	err = c.ModuleLoadDataEx(&module, &text[0], uint32(len(keys)), &keys[0], &values[0]).
		Err("cuModuleLoadDataEx of %s", i.Name)
	if err != nil {
		log, _, _ := bytes.Cut(c.log.Bytes, []byte{0})
		return 0, fmt.Errorf("%w: %s", err, strings.Join(strings.Fields(string(log)), " "))
	}
	c.loaded[i.Name] = module
	return module, nil
}

// cString returns s as a C string, which a zero byte ends.
func cString(s string) *byte { return &append([]byte(s), 0)[0] }
