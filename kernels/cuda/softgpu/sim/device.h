// Devices, their streams and events, and the thread that does a device's work.
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

// The codes of cuda.h that the software GPU gives.
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

// Mark is one record of an event: done once the work before it is.
struct Mark {
    bool done = false;
    double milliseconds = 0; // when
};

// Event is a handle. A wait is for the record that was the last one when the wait was asked for.
struct Event {
    bool timed;
    std::shared_ptr<Mark> last; // null before the first record
};

// Work is one entry of a stream's queue.
struct Work {
    std::shared_ptr<Mark> waits_for; // or null
    std::shared_ptr<Mark> marks;     // or null
    std::function<Fault()> run;      // or null
    uint64_t ticket = 0;             // the order in which work was asked for
};

struct Stream {
    std::deque<Work> queue;
    uint64_t preference; // the ready stream with the largest runs, if SOFTGPU_SEED is not 0
    bool running = false; // the head is being done, and is still in the queue
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
    uint32_t allowed_shared; // bytes of dynamic shared memory that a launch may ask for
};

// Settings come from the environment when cuInit is called.
//
//   SOFTGPU_DEVICES  how many there are, or a list of their architectures, such as sm_90,sm_80; one sm_90 by default
//   SOFTGPU_MEMORY   bytes of each, 16 GiB by default
//   SOFTGPU_SEED     0: streams run as their work was asked for, at once. Another number draws an order among those that
//                    events allow, and lets work wait until the program waits for it. If everything was asked for by
//                    then, and one thread waits, the order follows from the number alone. It also is the order of threads.
//   SOFTGPU_DRIVER   the CUDA version of the driver, 13000 by default
//   SOFTGPU_FAULT    a list, such as alloc:7,hang:gemm
//       alloc:N      the N-th cuMemAlloc of the process is out of memory
//       launch:N     the N-th cuLaunchKernel is refused
//       kernel:NAME  a kernel whose name begins so ends with an illegal address
//       hang:NAME    such a kernel never ends
//       lost:N       the device of the N-th launch is lost: every later call about it fails
//       nowait:N     the N-th cuStreamWaitEvent is forgotten
//       refuse:ROWS  cuBLASLt takes no algorithm for that number of rows
struct Settings {
    std::vector<int> architectures = {90};
    size_t memory = size_t(16) << 30;
    uint64_t seed = 0;
    int driver = 13000;
    bool blocking = false; // CUDA_LAUNCH_BLOCKING=1
    std::multimap<std::string, std::string> faults;

    bool read_environment(); // false: something in it is wrong, and has been said
    // hit says whether a fault is set for the count-th call; starts whether one is set for a name.
    bool hit(const char *fault, uint64_t count) const;
    bool starts(const char *fault, const std::string &name) const;
};

// Driver is everything, under one lock.
struct Driver {
    std::mutex lock;
    std::condition_variable changed; // work was added or done, or a thread waits
    Settings settings;
    bool initialized = false;
    std::vector<std::unique_ptr<Device>> devices;
    uint64_t tickets = 0, allocations = 0, launches = 0, waits = 0;
    std::string last_fault;
};
Driver &driver();

// Device is a GPU with its primary context. Its functions are called with the driver's lock held.
class Device {
  public:
    Device(int ordinal, int architecture);

    const int ordinal, architecture;
    int contexts = 0; // how often the primary context is retained
    Arena memory;
    std::map<void *, size_t> pinned;
    std::set<Stream *> streams, leaving; // leaving: destroyed with work in them
    std::set<Event *> events;
    std::set<LoadedModule *> modules;
    std::set<Function *> functions;
    int broken = 0; // the code of the fault that ended the context, 0 for none

    void add(Stream *s, Work w);
    // wait_until lets work be done until the condition holds or the context is broken.
    int wait_until(std::unique_lock<std::mutex> &held, const std::function<bool()> &condition);
    int drain(std::unique_lock<std::mutex> &held);
    // finish waits until no work is under way; queued work may stay queued.
    void finish(std::unique_lock<std::mutex> &held);
    void break_context(int code, const std::string &text);
    // release ends the primary context, with everything in it.
    void release();
    // restart makes the device as it is in a new process with the SOFTGPU_SEED of the settings.
    void restart();
    Stream *new_stream();
    double now() const;
    bool in_pinned(const void *address, size_t bytes) const;

  private:
    void work();
    Stream *choose();

    bool started = false;
    std::list<const std::function<bool()> *> conditions; // that threads of the program wait for
    std::mt19937_64 draw;
};

// say writes a line that begins with softgpu: to standard error.
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
// refuse says why and returns the code.
int refuse(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

} // namespace softgpu

// The software cuBLAS, a library of its own, calls these about the device whose context is current on the calling thread.
extern "C" {
// softgpu_enqueue puts work into a stream and returns 0, or the CUresult that says why not.
int softgpu_enqueue(void *stream, std::function<softgpu::Fault()> work);
// softgpu_left gives the bytes from an address to the end of its allocation.
size_t softgpu_left(uint64_t address);
// softgpu_refuses says whether SOFTGPU_FAULT refuses products of that many rows.
bool softgpu_refuses(uint64_t rows);
bool softgpu_current();
// softgpu_parallel calls work with each number below count, on several threads of the host.
void softgpu_parallel(uint64_t count, const std::function<void(uint64_t)> &work);
}
