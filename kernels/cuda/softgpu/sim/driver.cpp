// The driver API: the functions of cuda.h that package cuda calls, with all behaviour on which the package depends, and
// with the errors of a real driver for invalid calls. Parameters have the order and sizes of cuda.h.
#include "device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

using namespace softgpu;

namespace {

thread_local Device *current = nullptr; // the device whose context is current on this thread

// Call holds the lock during one API call. device is the device whose context is current.
class Call {
  public:
    Call() : held(driver().lock), d(driver()), device(current) {}

    // context_error returns 0 if a context that works is current on the thread, and otherwise the error of a call that
    // needs one.
    int context_error(const char *function) const {
        if (!d.initialized) return refuse(not_initialized, "%s before cuInit", function);
        if (device == nullptr) return refuse(invalid_context, "%s without a context that is current on its thread", function);
        if (device->contexts == 0) return refuse(invalid_context, "%s with a context that was released", function);
        return device->broken;
    }

    std::unique_lock<std::mutex> held;
    Driver &d;
    Device *const device;
};

#define NEEDS_CONTEXT(call)                                     \
    do {                                                        \
        if (const int code = call.context_error(__func__)) return code; \
    } while (false)

// handle_of returns the handle if it is a member of the set, or null.
template <class T>
T *handle_of(const std::set<T *> &known, void *handle) {
    const auto found = known.find(static_cast<T *>(handle));
    return found == known.end() ? nullptr : *found;
}

Stream *stream_of(const Call &c, void *handle, const char *function) {
    Stream *s = handle_of(c.device->streams, handle);
    if (handle == nullptr) refuse(invalid_handle, "%s on the default stream, which waits for all others", function);
    else if (s == nullptr) refuse(invalid_handle, "%s on a stream that device %d does not have", function, c.device->ordinal);
    return s;
}

Event *event_of(const Call &c, void *handle, const char *function) {
    Event *e = handle_of(c.device->events, handle);
    if (e == nullptr) refuse(invalid_handle, "%s with an event that device %d does not have", function, c.device->ordinal);
    return e;
}

unsigned char *address(uint64_t p) { return reinterpret_cast<unsigned char *>(p); }

// folder returns the folder of this library, with a slash at its end.
std::string folder() {
    Dl_info info;
    if (dladdr(reinterpret_cast<void *>(folder), &info) == 0 || info.dli_fname == nullptr) return "";
    const std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/') + 1);
}

// fingerprint returns the 64-bit FNV-1a hash of a text. Translated modules are named after the hash of their PTX.
uint64_t fingerprint(const char *text) {
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *p = text; *p != 0; p++) h = (h ^ static_cast<unsigned char>(*p)) * 0x100000001b3u;
    return h;
}

// first_driver returns the first CUDA version that supports a PTX ISA version from 7.0 to 8.5.
int first_driver(int major, int minor) { return (major + 4) * 1000 + minor * 10; }

} // namespace

extern "C" {

const char *softgpu_fault() {
    const std::lock_guard<std::mutex> held(driver().lock);
    return driver().last_fault.c_str();
}

// softgpu_restart is for tests: it sets the seed, resets every device, and counts the calls for SOFTGPU_FAULT anew. No
// work may be in progress.
void softgpu_restart(uint64_t seed) {
    Driver &d = driver();
    const std::lock_guard<std::mutex> held(d.lock);
    d.settings.seed = seed;
    d.allocations = d.launches = d.waits = 0;
    d.last_fault.clear();
    for (const auto &device : d.devices) device->restart();
}

// softgpu_drop is for tests: in later launches of a kernel, the barrier or wait for copies with the given number has no
// effect. With number 0 all of them have effect.
void softgpu_drop(const char *kernel, unsigned number) {
    Driver &d = driver();
    const std::lock_guard<std::mutex> held(d.lock);
    d.mutant = kernel;
    d.dropped = number;
}

int cuInit(unsigned flags) {
    Driver &d = driver();
    const std::lock_guard<std::mutex> held(d.lock);
    if (flags != 0) return refuse(invalid_value, "cuInit with flags %u", flags);
    if (d.initialized) return d.devices.empty() ? no_device : success;
    if (!d.settings.read_environment()) return unknown;
    catch_faults();
    for (const int architecture : d.settings.architectures)
        d.devices.push_back(std::make_unique<Device>(static_cast<int>(d.devices.size()), architecture));
    d.initialized = true;
    return d.devices.empty() ? no_device : success;
}

int cuDriverGetVersion(int *version) {
    const Call c;
    *version = c.d.settings.driver;
    return success;
}

int cuDeviceGetCount(int *count) {
    const Call c;
    if (!c.d.initialized) return refuse(not_initialized, "cuDeviceGetCount before cuInit");
    *count = static_cast<int>(c.d.devices.size());
    return success;
}

static Device *device_at(const Call &c, int device) {
    if (!c.d.initialized || device < 0 || device >= static_cast<int>(c.d.devices.size())) return nullptr;
    return c.d.devices[device].get();
}

int cuDeviceGet(int *device, int ordinal) {
    const Call c;
    if (device_at(c, ordinal) == nullptr) return invalid_device;
    *device = ordinal;
    return success;
}

int cuDeviceGetName(char *name, int bytes, int device) {
    const Call c;
    const Device *d = device_at(c, device);
    if (d == nullptr) return invalid_device;
    if (bytes < 1) return invalid_value;
    snprintf(name, bytes, "software GPU sm_%d", d->architecture);
    return success;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const Call c;
    const Device *d = device_at(c, device);
    if (d == nullptr) return invalid_device;
    switch (attribute) {
    case 33: *value = device + 1; return success; // number of the PCI bus, another for each device
    case 34:
    case 50: *value = 0; return success;
    case 75: *value = d->architecture / 10; return success;
    case 76: *value = d->architecture % 10; return success;
    }
    return refuse(invalid_value, "cuDeviceGetAttribute %d", attribute);
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    const Call c;
    if (device_at(c, device) == nullptr) return invalid_device;
    *bytes = c.d.settings.memory;
    return success;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    const Call c;
    Device *d = device_at(c, device);
    if (d == nullptr) return invalid_device;
    if (d->broken != 0) return d->broken;
    d->contexts++;
    *context = d;
    return success;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    Call c;
    Device *d = device_at(c, device);
    if (d == nullptr) return invalid_device;
    if (d->contexts == 0) return refuse(invalid_context, "cuDevicePrimaryCtxRelease of a context that is not retained");
    int code = success;
    if (d->contexts == 1) {
        code = d->drain(c.held);
        d->finish(c.held); // work that is still being executed in a broken context uses the memory
    }
    if (--d->contexts == 0) d->release(); // not 0 if another thread has retained the context while this one waited
    return code;
}

int cuCtxSetCurrent(void *context) {
    const Call c;
    Device *found = nullptr;
    for (const auto &d : c.d.devices)
        if (d.get() == context) found = d.get();
    if (context != nullptr && (found == nullptr || found->contexts == 0))
        return refuse(invalid_context, "cuCtxSetCurrent of a context that does not exist");
    current = found;
    return success;
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    const Call c;
    NEEDS_CONTEXT(c);
    *total = c.d.settings.memory;
    *free_bytes = c.d.settings.memory - c.device->memory.used();
    return success;
}

int cuMemAlloc_v2(uint64_t *p, size_t bytes) {
    const Call c;
    NEEDS_CONTEXT(c);
    if (bytes == 0) return refuse(invalid_value, "cuMemAlloc of 0 bytes");
    if (c.d.settings.hit("alloc", ++c.d.allocations)) return refuse(out_of_memory, "cuMemAlloc of %zu bytes, as SOFTGPU_FAULT says", bytes);
    if (bytes > c.d.settings.memory - c.device->memory.used()) return out_of_memory;
    unsigned char *made = c.device->memory.allocate(bytes);
    if (made == nullptr) return refuse(out_of_memory, "no addresses are left for %zu bytes", bytes);
    *p = reinterpret_cast<uint64_t>(made);
    return success;
}

int cuMemFree_v2(uint64_t p) {
    Call c;
    NEEDS_CONTEXT(c);
    if (const int code = c.device->drain(c.held)) return code;
    if (!c.device->memory.release(address(p))) return refuse(invalid_value, "cuMemFree of an address that was not allocated");
    return success;
}

int cuMemAllocHost_v2(void **p, size_t bytes) {
    const Call c;
    NEEDS_CONTEXT(c);
    if (bytes == 0) return refuse(invalid_value, "cuMemAllocHost of 0 bytes");
    *p = new_pinned(bytes);
    if (*p == nullptr) return out_of_memory;
    c.device->pinned[*p] = bytes;
    return success;
}

int cuMemFreeHost(void *p) {
    Call c;
    NEEDS_CONTEXT(c);
    if (const int code = c.device->drain(c.held)) return code;
    const auto found = c.device->pinned.find(p);
    if (found == c.device->pinned.end()) return refuse(invalid_value, "cuMemFreeHost of an address that was not allocated");
    delete_pinned(p, found->second);
    c.device->pinned.erase(found);
    return success;
}

// copy checks both addresses immediately and queues the copy.
static int copy(const Call &c, const char *function, uint64_t on_device, void *on_host, size_t bytes, void *stream, bool up) {
    Stream *s = stream_of(c, stream, function);
    if (s == nullptr) return invalid_handle;
    if (bytes == 0 || c.device->memory.left(address(on_device)) < bytes)
        return refuse(invalid_value, "%s of %zu bytes, beyond its allocation on the device", function, bytes);
    if (!c.device->in_pinned(on_host, bytes)) return refuse(invalid_value, "%s of %zu bytes, on the host not in pinned memory", function, bytes);
    Device *d = c.device;
    d->add(s, {nullptr, nullptr, [=] {
                   if (up) memcpy(address(on_device), on_host, bytes);
                   else memcpy(on_host, address(on_device), bytes);
                   return Fault();
               }});
    return success;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, void *from, size_t bytes, void *stream) {
    const Call c;
    NEEDS_CONTEXT(c);
    return copy(c, __func__, to, from, bytes, stream, true);
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    const Call c;
    NEEDS_CONTEXT(c);
    return copy(c, __func__, from, to, bytes, stream, false);
}

int cuModuleLoadDataEx(void **module, const char *image, unsigned options, const int *keys, void **values) {
    const Call c;
    NEEDS_CONTEXT(c);
    char *log = nullptr;
    size_t log_bytes = 0;
    for (unsigned i = 0; i < options; i++) {
        if (keys[i] == 5) log = static_cast<char *>(values[i]);
        else if (keys[i] == 6) log_bytes = static_cast<unsigned>(reinterpret_cast<uintptr_t>(values[i]));
        else return refuse(invalid_value, "cuModuleLoadDataEx with option %d", keys[i]);
    }
    const auto failed = [&](int code, const std::string &text) {
        if (log != nullptr && log_bytes > 0) snprintf(log, log_bytes, "%s", text.c_str());
        return refuse(code, "cuModuleLoadDataEx: %s", text.c_str());
    };
    int major = 0, minor = 0, target = 0;
    if (sscanf(image, ".version %d.%d .target sm_%d", &major, &minor, &target) != 3) return failed(invalid_image, "this is not PTX");
    if (first_driver(major, minor) > c.d.settings.driver) return failed(unsupported_ptx_version, "the PTX version is too new");
    if (target > c.device->architecture) return failed(invalid_ptx, "the PTX is for a later architecture");
    char name[32];
    snprintf(name, sizeof name, "%016llx.so", static_cast<unsigned long long>(fingerprint(image)));
    const std::string path = folder() + "modules/" + name;
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); // never unloaded
    if (library == nullptr) return failed(invalid_ptx, "this PTX was not translated: build the software GPU again (" + std::string(dlerror()) + ")");
    const auto *code = static_cast<const Module *>(dlsym(library, "softgpu_module"));
    if (code == nullptr) return failed(invalid_ptx, path + " contains no module");
    auto *loaded = new LoadedModule{code, {}};
    c.device->modules.insert(loaded);
    *module = loaded;
    return success;
}

int cuModuleUnload(void *module) {
    Call c;
    NEEDS_CONTEXT(c);
    if (const int code = c.device->drain(c.held)) return code;
    LoadedModule *m = handle_of(c.device->modules, module);
    if (m == nullptr) return refuse(invalid_handle, "cuModuleUnload of a module that does not exist");
    for (const auto &f : m->functions) c.device->functions.erase(f.get());
    c.device->modules.erase(m);
    delete m;
    return success;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    const Call c;
    NEEDS_CONTEXT(c);
    LoadedModule *m = handle_of(c.device->modules, module);
    if (m == nullptr) return refuse(invalid_handle, "cuModuleGetFunction of a module that does not exist");
    for (unsigned k = 0; k < m->code->count; k++) {
        if (strcmp(m->code->kernels[k].name, name) != 0) continue;
        // Static and dynamic shared memory together may use 48 KB unless the kernel's limit is raised.
        const Kernel &kernel = m->code->kernels[k];
        const uint32_t dynamic = kernel.static_shared < 48 << 10 ? (48 << 10) - kernel.static_shared : 0;
        m->functions.push_back(std::make_unique<Function>(Function{&kernel, dynamic}));
        c.device->functions.insert(m->functions.back().get());
        *function = m->functions.back().get();
        return success;
    }
    return refuse(not_found, "cuModuleGetFunction: no kernel is called %s", name);
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
    const Call c;
    NEEDS_CONTEXT(c);
    Function *f = handle_of(c.device->functions, function);
    if (f == nullptr) return refuse(invalid_handle, "cuFuncSetAttribute of a function that does not exist");
    // The maximum per block is 227 KB on sm_90, 163 KB on sm_80, 99 KB on sm_86 and sm_89.
    const int a = c.device->architecture, most = (a >= 90 && a < 120 ? 227 : a == 80 ? 163 : 99) << 10;
    if (attribute != 8 || value < 0 || value + static_cast<int>(f->kernel->static_shared) > most)
        return refuse(invalid_value, "cuFuncSetAttribute %d of %s to %d bytes of %d", attribute, f->kernel->name, value, most);
    f->allowed_shared = value;
    return success;
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **parameters, void **extra) {
    Call c;
    NEEDS_CONTEXT(c);
    const Function *f = handle_of(c.device->functions, function);
    if (f == nullptr) return refuse(invalid_handle, "cuLaunchKernel of a function that does not exist");
    const Kernel &k = *f->kernel;
    Stream *s = stream_of(c, stream, __func__);
    if (s == nullptr) return invalid_handle;
    if (gx == 0 || gy == 0 || gz == 0 || gx > 0x7fffffff || gy > 65535 || gz > 65535)
        return refuse(invalid_value, "%s on a grid of %u x %u x %u", k.name, gx, gy, gz);
    if (bx == 0 || bx % 32 != 0 || by != 1 || bz != 1)
        return refuse(invalid_value, "%s with blocks of %u x %u x %u threads, which is not simulated", k.name, bx, by, bz);
    if (bx > k.max_threads) return refuse(launch_out_of_resources, "%s takes at most %u threads, not %u", k.name, k.max_threads, bx);
    if (shared > f->allowed_shared || (shared > 0 && !k.dynamic_shared))
        return refuse(invalid_value, "%s with %u bytes of dynamic shared memory, %u allowed", k.name, shared, k.dynamic_shared ? f->allowed_shared : 0);
    if (extra != nullptr) return refuse(invalid_value, "%s with extra parameters", k.name);
    const uint64_t number = ++c.d.launches;
    if (c.d.settings.hit("launch", number)) return refuse(launch_out_of_resources, "launch %llu, of %s, as SOFTGPU_FAULT says", static_cast<unsigned long long>(number), k.name);
    if (c.d.settings.hit("lost", number)) {
        c.device->break_context(unknown, "the device is lost at launch " + std::to_string(number) + ", as SOFTGPU_FAULT says");
        return c.device->broken;
    }
    std::vector<uint64_t> slots(k.parameters);
    for (unsigned i = 0; i < k.parameters; i++) memcpy(&slots[i], parameters[i], k.sizes[i]);
    const uint64_t seed = c.d.settings.seed;
    const uint32_t dropped = c.d.mutant == k.name ? c.d.dropped : 0;
    const bool hangs = c.d.settings.starts("hang", k.name) || c.d.settings.hit("hang", number), fails = c.d.settings.starts("kernel", k.name);
    Device *d = c.device;
    d->add(s, {nullptr, nullptr, [=, &k] {
                   if (hangs) {
                       log_line("%s hangs, as SOFTGPU_FAULT says", k.name);
                       for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
                   }
                   if (fails) return Fault{illegal_address, std::string(k.name) + " fails, as SOFTGPU_FAULT says"};
                   return run({&k, {gx, gy, gz}, bx, shared, slots.data(), &d->memory, seed < 2 ? seed : seed + number, dropped});
               }});
    if (!c.d.settings.blocking) return success;
    return d->wait_until(c.held, [=] { return s->idle(); });
}

int cuStreamCreate(void **stream, unsigned flags) {
    const Call c;
    NEEDS_CONTEXT(c);
    if (flags != 1) return refuse(invalid_value, "cuStreamCreate with flags %u: such a stream waits for the default stream", flags);
    *stream = c.device->new_stream();
    return success;
}

int cuStreamDestroy_v2(void *stream) {
    const Call c;
    NEEDS_CONTEXT(c);
    Stream *s = stream_of(c, stream, __func__);
    if (s == nullptr) return invalid_handle;
    c.device->streams.erase(s);
    if (s->idle()) delete s;
    else c.device->destroyed.insert(s);
    return success;
}

int cuStreamSynchronize(void *stream) {
    Call c;
    NEEDS_CONTEXT(c);
    Stream *s = stream_of(c, stream, __func__);
    if (s == nullptr) return invalid_handle;
    return c.device->wait_until(c.held, [=] { return s->idle(); });
}

int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    const Call c;
    NEEDS_CONTEXT(c);
    Stream *s = stream_of(c, stream, __func__);
    const Event *e = event_of(c, event, __func__);
    if (s == nullptr || e == nullptr) return invalid_handle;
    if (flags != 0) return refuse(invalid_value, "cuStreamWaitEvent with flags %u", flags);
    if (c.d.settings.hit("nowait", ++c.d.waits)) {
        log_line("wait %llu for an event has no effect, as SOFTGPU_FAULT says", static_cast<unsigned long long>(c.d.waits));
        return success;
    }
    if (e->last != nullptr) c.device->add(s, {e->last, nullptr, nullptr});
    return success;
}

int cuEventCreate(void **event, unsigned flags) {
    const Call c;
    NEEDS_CONTEXT(c);
    if (flags > 3) return refuse(invalid_value, "cuEventCreate with flags %u", flags);
    auto *e = new Event{(flags & 2) == 0, nullptr};
    c.device->events.insert(e);
    *event = e;
    return success;
}

int cuEventDestroy_v2(void *event) {
    const Call c;
    NEEDS_CONTEXT(c);
    Event *e = event_of(c, event, __func__);
    if (e == nullptr) return invalid_handle;
    c.device->events.erase(e);
    delete e;
    return success;
}

int cuEventRecord(void *event, void *stream) {
    const Call c;
    NEEDS_CONTEXT(c);
    Event *e = event_of(c, event, __func__);
    Stream *s = stream_of(c, stream, __func__);
    if (s == nullptr || e == nullptr) return invalid_handle;
    e->last = std::make_shared<EventRecord>();
    c.device->add(s, {nullptr, e->last, nullptr});
    return success;
}

int cuEventSynchronize(void *event) {
    Call c;
    NEEDS_CONTEXT(c);
    const Event *e = event_of(c, event, __func__);
    if (e == nullptr) return invalid_handle;
    const std::shared_ptr<EventRecord> record = e->last;
    if (record == nullptr) return success;
    return c.device->wait_until(c.held, [=] { return record->done; });
}

int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    const Call c;
    NEEDS_CONTEXT(c);
    const Event *a = event_of(c, start, __func__), *b = event_of(c, end, __func__);
    if (a == nullptr || b == nullptr || !a->timed || !b->timed || a->last == nullptr || b->last == nullptr)
        return refuse(invalid_handle, "cuEventElapsedTime of events without times");
    if (!a->last->done || !b->last->done) return not_ready;
    *milliseconds = static_cast<float>(b->last->milliseconds - a->last->milliseconds);
    return success;
}

int softgpu_enqueue(void *stream, std::function<Fault()> work) {
    const Call c;
    NEEDS_CONTEXT(c);
    Stream *s = stream_of(c, stream, "cublasLtMatmul");
    if (s == nullptr) return invalid_handle;
    c.device->add(s, {nullptr, nullptr, std::move(work)});
    return success;
}

size_t softgpu_left(uint64_t p) {
    const Call c;
    return c.device == nullptr ? 0 : c.device->memory.left(address(p));
}

bool softgpu_refuses(uint64_t rows) {
    const Call c;
    return c.d.settings.hit("refuse", rows);
}

void softgpu_parallel(uint64_t count, const std::function<void(uint64_t)> &work) { parallel(count, work); }

bool softgpu_current() {
    const Call c;
    return c.device != nullptr && c.device->contexts > 0;
}

} // extern "C"
