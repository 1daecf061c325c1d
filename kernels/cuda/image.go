package cuda

import (
	"bytes"
	"fmt"
	"strings"
)

// image is one PTX module as the driver gets it.
type image struct {
	name    string
	isa     string   // the PTX ISA version, for example "7.0"
	kernels []string // the functions in it
	text    func() ([]byte, error)
}

// embeddedImages are the kernels that the binary carries.
func embeddedImages() ([]image, error) {
	m, err := readManifest()
	if err != nil {
		return nil, err
	}
	var list []image
	for _, module := range m.Modules {
		list = append(list, image{module.File, module.Version, module.names(), module.text})
	}
	return list, nil
}

// toolkits gives the first CUDA release, and the driver branch that came with
// it, that reads each PTX ISA version (table "PTX Release History" of NVIDIA's
// PTX ISA document).
var toolkits = []struct {
	isa    string
	cuda   int // as cuDriverGetVersion counts: 1000 · major + 10 · minor
	branch int
}{
	{"7.0", 11000, 450}, {"7.1", 11010, 455}, {"7.2", 11020, 460}, {"7.3", 11030, 465}, {"7.4", 11040, 470},
	{"7.5", 11050, 495}, {"7.6", 11060, 510}, {"7.7", 11070, 515}, {"7.8", 11080, 520},
	{"8.0", 12000, 525}, {"8.1", 12010, 530}, {"8.2", 12020, 535}, {"8.3", 12030, 545}, {"8.4", 12040, 550},
	{"8.5", 12050, 555}, {"8.6", 12070, 565}, {"8.7", 12080, 570}, {"8.8", 12090, 575},
}

// cudaVersion writes a version as cuDriverGetVersion counts in the usual form.
func cudaVersion(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// checkDriver refuses a driver that cannot read an image.
func checkDriver(version int, images []image) error {
	for _, i := range images {
		for _, t := range toolkits {
			if t.isa == i.isa && version < t.cuda {
				return driverTooOld(version, i)
			}
		}
	}
	return nil
}

// driverTooOld is the sentence for a driver that does not know an image's PTX
// version.
func driverTooOld(version int, i image) error {
	for _, t := range toolkits {
		if t.isa == i.isa {
			return unavailablef(nil, "the NVIDIA driver is too old: it supports CUDA %s, and the kernels (PTX %s) need CUDA %s, driver %d or newer",
				cudaVersion(version), i.isa, cudaVersion(t.cuda), t.branch)
		}
	}
	return unavailablef(nil, "the NVIDIA driver is too old: it supports CUDA %s, and does not read the kernels' PTX %s", cudaVersion(version), i.isa)
}

// code holds a device's modules: each is compiled by the driver when one of
// its kernels is first used, so that a model waits only for what it needs. It
// belongs to the device's thread.
type code struct {
	drv           *driver
	driverVersion int
	images        []image
	modules       map[string]handle // by image
	functions     map[string]handle // by kernel
	shared        map[string]uint32 // largest dynamic shared memory that was allowed, by kernel
	log           pinned            // what the driver's compiler says
}

// defaultShared is the dynamic shared memory that a block may have without
// being allowed more.
const defaultShared = 48 << 10

// function finds a kernel, loading its module first, and allows it that much
// dynamic shared memory.
func (c *code) function(name string, shared uint32) (handle, error) {
	f, ok := c.functions[name]
	if !ok {
		module, err := c.module(name)
		if err != nil {
			return 0, err
		}
		if err := c.drv.cuModuleGetFunction(&f, module, cString(name)).err("cuModuleGetFunction of %s", name); err != nil {
			return 0, err
		}
		c.functions[name] = f
	}
	if shared > defaultShared && shared > c.shared[name] {
		err := c.drv.cuFuncSetAttribute(f, functionMaxShared, int32(shared)).err("cuFuncSetAttribute of %s to %d bytes of shared memory", name, shared)
		if err != nil {
			return 0, err
		}
		c.shared[name] = shared
	}
	return f, nil
}

// module loads the image that holds a kernel.
func (c *code) module(kernel string) (handle, error) {
	for _, i := range c.images {
		for _, k := range i.kernels {
			if k == kernel {
				return c.load(i)
			}
		}
	}
	return 0, fmt.Errorf("this build has no kernel %s", kernel)
}

func (c *code) load(i image) (handle, error) {
	if m, ok := c.modules[i.name]; ok {
		return m, nil
	}
	text, err := i.text()
	if err != nil {
		return 0, err
	}
	// The log is pinned memory, so that values holds no pointer to Go's.
	clear(c.log.bytes)
	keys := []int32{jitErrorLog, jitErrorLogBytes}
	values := []uintptr{uintptr(c.log.at), uintptr(len(c.log.bytes))}
	var m handle
	result := c.drv.cuModuleLoadDataEx(&m, &text[0], uint32(len(keys)), &keys[0], &values[0])
	if result == codeUnsupportedPTXVersion || result == codeInvalidPTX && strings.Contains(c.said(), "version") {
		return 0, driverTooOld(c.driverVersion, i)
	}
	if err := result.err("cuModuleLoadDataEx of %s", i.name); err != nil {
		if log := c.said(); log != "" {
			return 0, fmt.Errorf("%w: %s", err, log)
		}
		return 0, err
	}
	c.modules[i.name] = m
	return m, nil
}

// said is the compiler's log on one line.
func (c *code) said() string {
	text, _, _ := bytes.Cut(c.log.bytes, []byte{0})
	return strings.Join(strings.Fields(string(text)), " ")
}

// unload lets the driver forget the modules.
func (c *code) unload() {
	for _, m := range c.modules {
		c.drv.cuModuleUnload(m)
	}
}

// cString is a name that ends in a zero.
func cString(s string) *byte { return &append([]byte(s), 0)[0] }
