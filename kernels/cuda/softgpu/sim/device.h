// Devices, their streams and events, and the host thread that executes a device's work.
#pragma once

#include "block.h"
#include "memory.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace softgpu {

// Error codes of cuda.h that the software GPU returns.
enum Result {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    not_initialized = 3,
    no_device = 100,
    invalid_device = 101,
    invalid_image = 200,
    invalid_context = 201,
    invalid_ptx = 218,
    unsupported_ptx_version = 222,
    invalid_handle = 400,
    not_found = 500,
    not_ready = 600,
    illegal_address = 700,
    launch_out_of_resources = 701,
    launch_failed = 719,
    unknown = 999,
};

class Device;

// EventRecord is one recording of an event. It is done when the work before it is done.
struct EventRecord {
    bool done = false;
    double milliseconds = 0; // time at which it was done
};

// Event is an event of the driver API. A wait for it refers to the last record at the time of the call that waits.
struct Event {
    bool timed;
    std::shared_ptr<EventRecord> last; // null before the first record
};

// Work is one entry of a stream's queue.
struct Work {
    std::shared_ptr<EventRecord> waits_for; // record that must be done before the work runs, or null
    std::shared_ptr<EventRecord> completes; // record that is done after the work, or null
    std::function<Fault()> run;             // null if the entry only waits or only completes a record
    uint64_t number = 0;                    // counts the work queued on all streams
};

struct Stream {
    std::deque<Work> queue;
    uint64_t preference; // the ready stream with the largest preference runs, if SOFTGPU_SEED is not 0
    bool running = false; // whether the first entry is being executed; it is still in the queue
    bool ready() const { return !queue.empty() && !running && (queue.front().waits_for == nullptr || queue.front().waits_for->done); }
    bool idle() const { return queue.empty(); }
};

// LoadedModule is a translated module on a device.
struct LoadedModule {
    const Module *code;
    std::vector<std::unique_ptr<struct Function>> functions;
};

struct Function {
    const Kernel *kernel;
    uint32_t allowed_shared; // limit of dynamic shared memory for a launch, in bytes
};

// Settings are read from the environment by cuInit.
//
//   SOFTGPU_DEVICES  number of devices, or a list of their architectures, such as sm_90,sm_80; default one sm_90
//   SOFTGPU_MEMORY   memory of each device in bytes; default 16 GiB
//   SOFTGPU_SEED     0: work is executed at once, in the order of the calls. Any other number draws one of the orders
//                    that events allow, and delays work until the program waits for it. If the program queues all work
//                    before it waits, and waits in one thread, the order depends only on the number. The number also
//                    determines the order of the threads in a launch.
//   SOFTGPU_DRIVER   CUDA version of the driver; default 13000
//   SOFTGPU_FAULT    list of faults, such as alloc:7,hang:gemm
//       alloc:N      the N-th cuMemAlloc of the process returns out of memory
//       launch:N     the N-th cuLaunchKernel is refused
//       kernel:NAME  kernels whose names begin with NAME end with an illegal address
//       hang:NAME    kernels whose names begin with NAME never end
//       hang:N       the kernel of the N-th launch never ends
//       lost:N       the device of the N-th launch is lost: all later calls for it fail
//       nowait:N     the N-th cuStreamWaitEvent has no effect
//       refuse:ROWS  cublasLtMatmulAlgoCheck refuses every algorithm for products of ROWS rows
struct Settings {
    std::vector<int> architectures = {90};
    size_t memory = size_t(16) << 30;
    uint64_t seed = 0;
    int driver = 13000;
    bool blocking = false; // whether CUDA_LAUNCH_BLOCKING is 1
    std::multimap<std::string, std::string> faults;

    bool read_environment(); // returns false if a value is invalid, after logging it
    // hit returns whether a fault is set for the call with the number count. starts returns whether a fault is set for
    // a text with which name begins.
    bool hit(const char *fault, uint64_t count) const;
    bool starts(const char *fault, const std::string &name) const;
};

// Driver is the global state, protected by one lock.
struct Driver {
    std::mutex lock;
    std::condition_variable changed; // work was added or done, or a thread began to wait
    Settings settings;
    bool initialized = false;
    std::vector<std::unique_ptr<Device>> devices;
    uint64_t queued = 0, allocations = 0, launches = 0, waits = 0;
    std::string last_fault;
    std::string mutant;   // name of the kernel that softgpu_drop has changed
    uint32_t dropped = 0; // number of the barrier or wait that has no effect in the mutant, or 0
};
Driver &driver();

// Device is a GPU with its primary context. Callers of its functions must hold the driver's lock.
class Device {
  public:
    Device(int ordinal, int architecture);

    const int ordinal, architecture;
    int contexts = 0; // number of times the primary context is retained
    Arena memory;
    std::map<void *, size_t> pinned;
    std::set<Stream *> streams, destroyed; // destroyed: streams that still had work when they were destroyed
    std::set<Event *> events;
    std::set<LoadedModule *> modules;
    std::set<Function *> functions;
    int broken = 0; // code of the fault that broke the context, or 0

    void add(Stream *s, Work w);
    // wait_until waits until the condition holds or the context is broken. Meanwhile queued work is executed. It
    // returns the code of the fault that broke the context, or 0.
    int wait_until(std::unique_lock<std::mutex> &held, const std::function<bool()> &condition);
    int drain(std::unique_lock<std::mutex> &held);
    // finish waits until no work is being executed. Queued work may remain.
    void finish(std::unique_lock<std::mutex> &held);
    void break_context(int code, const std::string &text);
    // release destroys the primary context and everything in it.
    void release();
    // restart resets the device to its state in a new process with the SOFTGPU_SEED of the settings.
    void restart();
    Stream *new_stream();
    double now() const;
    bool in_pinned(const void *address, size_t bytes) const;

  private:
    void work();
    Stream *choose();

    bool started = false;
    std::list<const std::function<bool()> *> conditions; // conditions for which threads of the program wait
    std::mt19937_64 draw;
};

// log_line writes a line that begins with "softgpu:" to standard error.
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
// refuse logs the reason and returns the code.
int refuse(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

} // namespace softgpu

// The software cuBLAS, which is a separate library, calls these functions.
extern "C" {
// softgpu_enqueue adds work to a stream of the calling thread's context. It returns 0, or a CUresult if it fails.
int softgpu_enqueue(void *stream, std::function<softgpu::Fault()> work);
// softgpu_left returns the number of bytes from an address to the end of its allocation in the calling thread's
// context, or 0 if there is no such allocation.
size_t softgpu_left(uint64_t address);
// softgpu_refuses returns whether SOFTGPU_FAULT contains refuse:ROWS for the given number of rows.
bool softgpu_refuses(uint64_t rows);
// softgpu_current returns whether a context is current on the calling thread.
bool softgpu_current();
// softgpu_parallel calls work with each number below count, on several host threads.
void softgpu_parallel(uint64_t count, const std::function<void(uint64_t)> &work);
}
