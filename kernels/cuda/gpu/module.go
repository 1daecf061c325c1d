package gpu

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"seqembed/kernels/cuda/driver"
)

// Image is one PTX module as the driver gets it.
type Image struct {
	Name    string
	ISA     string                 // the PTX ISA version, for example "7.0"
	Kernels []string               // the functions in it
	Text    func() ([]byte, error) // the PTX, ended by a zero
}

// toolkits gives the first CUDA release, and the driver branch that came with it, that reads each PTX ISA version
// (table "PTX Release History" of NVIDIA's PTX ISA document). Releases count as cuDriverGetVersion does: 1000 · major +
// 10 · minor.
var toolkits = map[string]struct{ cuda, branch int }{
	"7.0": {11000, 450}, "7.1": {11010, 455}, "7.2": {11020, 460}, "7.3": {11030, 465}, "7.4": {11040, 470},
	"7.5": {11050, 495}, "7.6": {11060, 510}, "7.7": {11070, 515}, "7.8": {11080, 520},
	"8.0": {12000, 525}, "8.1": {12010, 530}, "8.2": {12020, 535}, "8.3": {12030, 545}, "8.4": {12040, 550},
	"8.5": {12050, 555}, "8.6": {12070, 565}, "8.7": {12080, 570}, "8.8": {12090, 575},
}

// Version writes a version as cuDriverGetVersion counts in the usual form.
func Version(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// CheckDriver refuses a driver that cannot read one of the images.
func CheckDriver(version int, images []Image) error {
	for _, i := range images {
		if version < toolkits[i.ISA].cuda {
			return driverTooOld(version, i)
		}
	}
	return nil
}

// driverTooOld is the sentence for a driver that does not know an image's PTX version.
func driverTooOld(version int, i Image) error {
	needed := "need a newer one"
	if t, ok := toolkits[i.ISA]; ok {
		needed = fmt.Sprintf("need CUDA %s, driver %d or newer", Version(t.cuda), t.branch)
	}
	return driver.Unavailable(nil, "the NVIDIA driver is too old: it supports CUDA %s, and the kernels (PTX %s) %s",
		Version(version), i.ISA, needed)
}

// modules holds a device's modules: each is compiled by the driver when one of its kernels is first used, so that a
// program waits only for its own.
type modules struct {
	cuda          *driver.CUDA
	driverVersion int
	images        []Image
	loaded        map[string]driver.Handle // by image
	functions     map[string]driver.Handle // by kernel
	shared        map[string]int           // largest dynamic shared memory that was allowed, by kernel
	log           Pinned                   // the messages of the driver's compiler
}

// defaultShared is the dynamic shared memory that a block may have without being allowed more.
const defaultShared = 48 << 10

// Kernel is a function on the device.
type Kernel struct {
	Name     string
	function driver.Handle
}

// Kernel finds a kernel, loading its module first, and allows it that much dynamic shared memory. Of several images
// that have it the first serves.
func (c *Context) Kernel(name string, shared int) (Kernel, error) {
	m := &c.modules
	f, ok := m.functions[name]
	if !ok {
		i := slices.IndexFunc(m.images, func(i Image) bool { return slices.Contains(i.Kernels, name) })
		if i < 0 {
			return Kernel{}, fmt.Errorf("this build has no kernel %s", name)
		}
		module, err := m.load(m.images[i])
		if err != nil {
			return Kernel{}, err
		}
		if err := m.cuda.ModuleGetFunction(&f, module, cString(name)).Err("cuModuleGetFunction of %s", name); err != nil {
			return Kernel{}, err
		}
		m.functions[name] = f
	}
	if shared > defaultShared && shared > m.shared[name] {
		err := m.cuda.FuncSetAttribute(f, driver.FunctionMaxShared, int32(shared)).
			Err("cuFuncSetAttribute of %s to %d bytes of shared memory", name, shared)
		if err != nil {
			return Kernel{}, err
		}
		m.shared[name] = shared
	}
	return Kernel{name, f}, nil
}

func (m *modules) load(i Image) (driver.Handle, error) {
	if module, ok := m.loaded[i.Name]; ok {
		return module, nil
	}
	text, err := i.Text()
	if err != nil {
		return 0, err
	}
	// The log is pinned memory, so that values holds no pointer to Go's.
	clear(m.log.Bytes)
	keys := []int32{driver.JITErrorLog, driver.JITErrorLogBytes}
	values := []uintptr{uintptr(m.log.At), uintptr(len(m.log.Bytes))}
	var module driver.Handle
	result := m.cuda.ModuleLoadDataEx(&module, &text[0], uint32(len(keys)), &keys[0], &values[0])
	if result == driver.UnsupportedPTXVersion || result == driver.InvalidPTX && strings.Contains(m.said(), "version") {
		return 0, driverTooOld(m.driverVersion, i)
	}
	if err := result.Err("cuModuleLoadDataEx of %s", i.Name); err != nil {
		if log := m.said(); log != "" {
			return 0, fmt.Errorf("%w: %s", err, log)
		}
		return 0, err
	}
	m.loaded[i.Name] = module
	return module, nil
}

// said is the compiler's log on one line.
func (m *modules) said() string {
	text, _, _ := bytes.Cut(m.log.Bytes, []byte{0})
	return strings.Join(strings.Fields(string(text)), " ")
}

// unload lets the driver forget the modules.
func (m *modules) unload() {
	for _, module := range m.loaded {
		m.cuda.ModuleUnload(module)
	}
}

// cString is a name that ends in a zero.
func cString(s string) *byte { return &append([]byte(s), 0)[0] }
