#include "block.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace softgpu {

namespace {

// Error codes of cuda.h for failed kernels.
enum { illegal_address = 700, launch_timeout = 702, misaligned_address = 716, launch_failed = 719 };

constexpr size_t stack_bytes = 128 << 10;

// The stack of thread t begins t · stack_shift modulo most_shifted bytes before the end of its memory. Without the
// shift the frames of all threads would compete for the same few sets of the cache.
constexpr size_t stack_shift = 17 * 64, most_shifted = 32 << 10;

enum State { not_begun, runnable, waits_for_block, waits_for_warp, ended };

class Processor;

struct Copy {
    unsigned char *to;
    const unsigned char *from;
    uint32_t bytes;
};

// Fiber is a thread of a block. It runs on its own stack, or on that of a thread that has ended.
class Fiber final : public Thread {
  public:
    void barrier() override;
    void warp_barrier() override;
    uint32_t shuffle(uint32_t value, uint32_t mask) override;
    void ldmatrix(uint32_t (&r)[4], uint32_t address, bool transposed) override;
    void mma(unsigned count, float (*c)[4], const uint32_t (*a)[4], const uint32_t (*b)[2], Half type) override;
    void copy_async(uint32_t to, uint64_t from, uint32_t bytes) override;
    void copy_commit() override;
    void copy_wait(int groups) override;
    [[noreturn]] void unsupported(const char *what) override;
    [[noreturn]] void shared_fault(uint32_t address, unsigned bytes) override;
    [[noreturn]] void global_fault(uint64_t address, unsigned bytes) override;
    [[noreturn]] void misaligned_fault(const char *space, uint64_t address, unsigned bytes) override;

    void begin(const Launch &launch, Index block, unsigned thread, const Guarded &shared);
    unsigned char *stack_end() const { return stack + stack_bytes - tid.x * stack_shift % most_shifted; }
    void complete(std::vector<Copy> &copies);

    Processor *processor = nullptr;
    State state = ended;
    unsigned char *stack = nullptr;
#ifdef __x86_64__
    void *sp = nullptr;
#else
    ucontext_t context;
#endif
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
};

struct Warp {
    uint32_t ready; // bit mask of the lanes that can run
    int arrived;
    const void *operation;
    void *operands[32]; // operands of each lane
};

// Processor runs one block at a time on a host thread.
class Processor {
  public:
    Processor() = default;
    Processor(const Processor &) = delete;
    ~Processor();
    // run_block runs one block and sets `fault` if it fails.
    void run_block(const Launch &launch, uint64_t number);

    Fault fault;

    // Fibers call the functions below.
    void body();
    void wait_for_block();
    void wait_for_warp(const void *operation, void *operands, void (*step)(void *(&lanes)[32]));
    [[noreturn]] void fail(int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
    // late returns whether asynchronous copies are made only when they are waited for.
    bool late() const { return launch->order % 2 == 0; }

  private:
    int pick();
    void shuffle_preference();
    void enter(Fiber &f);
    void leave(Fiber &f);
    void yield(Fiber &f);
    void prepare(Fiber &f);

    const Launch *launch = nullptr;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<int> preference; // indices of the warps, the preferred one first
    int running = -1;
    unsigned waiting = 0, finished = 0, threads = 0;
    std::mt19937_64 random_bits;
    Scratch scratch;
#ifdef __x86_64__
    void *scheduler_sp = nullptr;
#else
    ucontext_t scheduler_context;
#endif
};

// current is the processor of this host thread while a fiber runs. A signal handler reads it, so reading must not
// allocate.
thread_local Processor *volatile current __attribute__((tls_model("initial-exec"))) = nullptr;

#ifdef __x86_64__
extern "C" void softgpu_switch(void **save, void *load);
asm(R"(
.text
.local softgpu_switch
softgpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
void Processor::enter(Fiber &f) { softgpu_switch(&scheduler_sp, f.sp); }
void Processor::leave(Fiber &f) { softgpu_switch(&f.sp, scheduler_sp); }
void swap(Fiber &from, Fiber &to) { softgpu_switch(&from.sp, to.sp); }
#else
void Processor::enter(Fiber &f) { swapcontext(&scheduler_context, &f.context); }
void Processor::leave(Fiber &f) { swapcontext(&f.context, &scheduler_context); }
void swap(Fiber &from, Fiber &to) { swapcontext(&from.context, &to.context); }
#endif

// yield switches from f, which waits, to another fiber, or to the scheduler if no fiber can run.
void Processor::yield(Fiber &f) {
    const int next = pick();
    if (next < 0) {
        leave(f);
        return;
    }
    running = next;
    if (fibers[next].state == not_begun) prepare(fibers[next]);
    swap(f, fibers[next]);
}

void start_fiber() { current->body(); }

Processor::~Processor() {
    for (Fiber &f : fibers)
        if (f.stack != nullptr) munmap(f.stack, stack_bytes);
}

void Processor::prepare(Fiber &f) {
    if (f.stack == nullptr) {
        void *stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) {
            fprintf(stderr, "softgpu: no host memory for the stacks of a block\n");
            abort();
        }
        f.stack = static_cast<unsigned char *>(stack);
    }
#ifdef __x86_64__
    // A new stack holds six saved registers and the return address, which softgpu_switch pops. When a function is
    // entered, its stack pointer must be 8 bytes off a multiple of 16.
    void **top = reinterpret_cast<void **>(f.stack_end()) - 1;
    *--top = reinterpret_cast<void *>(start_fiber);
    f.sp = top - 6;
    memset(f.sp, 0, 6 * sizeof(void *));
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = f.stack_end() - f.stack;
    f.context.uc_link = &scheduler_context;
    makecontext(&f.context, start_fiber, 0);
#endif
}

void Fiber::begin(const Launch &launch, Index block, unsigned thread, const Guarded &shared) {
    tid = {thread, 0, 0};
    ctaid = block;
    ntid = {launch.threads, 1, 1};
    nctaid = launch.grid;
    dropped = launch.dropped;
    shared_memory = shared.address;
    shared_bytes = static_cast<uint32_t>(shared.size);
    global_begin = launch.memory->begin();
    global_bytes = launch.memory->bytes();
    state = not_begun;
    open.clear();
    groups.clear();
}

// body runs a thread to its end, and then each next thread that has not begun, on the same stack.
void Processor::body() {
    for (;;) {
        Fiber &f = fibers[running];
        f.state = runnable;
        launch->kernel->run(f, launch->slots);
        const auto full = [](const std::vector<Copy> &g) { return !g.empty(); };
        if (full(f.open) || std::any_of(f.groups.begin(), f.groups.end(), full))
            fail(launch_failed, "a thread ends with copies that it has not waited for");
        f.state = ended;
        finished++;
        warps[running / 32].ready &= ~(1u << running % 32);
        const int next = pick();
        if (next < 0) leave(f);
        running = next;
        if (fibers[next].state != not_begun) swap(f, fibers[next]);
    }
}

void Processor::shuffle_preference() {
    if (launch->order > 1) std::shuffle(preference.begin(), preference.end(), random_bits);
}

// pick returns the index of the fiber to run, or -1 if none can run. The preferred warp runs as far as possible before
// the others, so that missing synchronization shows.
int Processor::pick() {
    if (launch->order > 1 && random_bits() % 64 == 0) shuffle_preference();
    for (int w : preference) {
        const uint32_t ready = warps[w].ready;
        if (ready == 0) continue;
        int lane = __builtin_ctz(ready);
        if (launch->order == 1) lane = 31 - __builtin_clz(ready);
        if (launch->order > 1) {
            lane = random_bits() % 32;
            while (!(ready >> lane & 1)) lane = (lane + 1) % 32;
        }
        return 32 * w + lane;
    }
    return -1;
}

void Processor::run_block(const Launch &l, uint64_t number) {
    launch = &l;
    threads = l.threads;
    if (fibers.size() < threads) fibers.resize(threads);
    warps.resize(threads / 32);
    preference.resize(threads / 32);
    for (size_t w = 0; w < warps.size(); w++) preference[w] = l.order == 1 ? warps.size() - 1 - w : w;
    if (l.order > 1) random_bits.seed(l.order + number * 0x9e3779b97f4a7c15u);

    const uint32_t shared = l.kernel->static_shared + (l.kernel->dynamic_shared ? l.dynamic_shared : 0);
    scratch.resize(shared);
    scratch.memory().fill();
    const Index block = {static_cast<unsigned>(number % l.grid.x), static_cast<unsigned>(number / l.grid.x % l.grid.y),
                         static_cast<unsigned>(number / l.grid.x / l.grid.y)};
    for (unsigned t = 0; t < threads; t++) {
        fibers[t].processor = this;
        fibers[t].begin(l, block, t, scratch.memory());
    }
    waiting = finished = 0;
    for (Warp &w : warps) w.ready = ~0u, w.arrived = 0;
    shuffle_preference();
    current = this;
    running = pick();
    prepare(fibers[running]);
    enter(fibers[running]); // returns when no fiber can run or one fails, which abandons the others
    current = nullptr;
    if (fault.code != 0) return;
    if (finished < threads) {
        const auto in_warps = std::count_if(fibers.begin(), fibers.begin() + threads, [](const Fiber &f) { return f.state == waits_for_warp; });
        fault = {launch_timeout, std::string(l.kernel->name) + ": the block hangs: " + std::to_string(waiting) +
                                     " threads wait at a barrier and " + std::to_string(in_warps) + " for their warp, " +
                                     std::to_string(finished) + " have ended"};
        return;
    }
    if (!scratch.memory().intact()) fault = {launch_failed, std::string(l.kernel->name) + ": a write beside shared memory"};
}

void Processor::fail(int code, const char *format, ...) {
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const Fiber &f = fibers[running];
    fault = {code, std::string(launch->kernel->name) + ": " + text + " (block " + std::to_string(f.ctaid.x) + "," +
                       std::to_string(f.ctaid.y) + " thread " + std::to_string(f.tid.x) + ")"};
    leave(fibers[running]);
    abort(); // not reached: this fiber is never entered again
}

void Processor::wait_for_block() {
    if (++waiting < threads) {
        Fiber &f = fibers[running];
        f.state = waits_for_block;
        warps[running / 32].ready &= ~(1u << running % 32);
        yield(f);
        f.state = runnable;
        return;
    }
    waiting = 0;
    for (Warp &w : warps) w.ready = ~0u;
    shuffle_preference();
}

// wait_for_warp waits for the 32 lanes of the warp. The last lane to arrive runs step on the operands of all lanes. The
// pointer operation identifies the operation, which must be the same in all lanes.
void Processor::wait_for_warp(const void *operation, void *operands, void (*step)(void *(&lanes)[32])) {
    Warp &w = warps[running / 32];
    if (w.arrived > 0 && w.operation != operation) fail(launch_failed, "the lanes of a warp are at different operations");
    w.operation = operation;
    w.operands[running % 32] = operands;
    if (++w.arrived < 32) {
        Fiber &f = fibers[running];
        f.state = waits_for_warp;
        w.ready &= ~(1u << running % 32);
        yield(f);
        f.state = runnable;
        return;
    }
    w.arrived = 0;
    if (step != nullptr) step(w.operands);
    w.ready = ~0u;
}

// Warp operations.

struct Shuffle {
    uint32_t value, result, mask;
};

void shuffle_step(void *(&lanes)[32]) {
    for (uint32_t lane = 0; lane < 32; lane++) {
        Shuffle &s = *static_cast<Shuffle *>(lanes[lane]);
        s.result = static_cast<Shuffle *>(lanes[(lane ^ s.mask) & 31])->value;
    }
}

struct Matrices {
    uint32_t *r;
    const unsigned char *row;
};

uint16_t element(void *(&lanes)[32], int row, int column) {
    uint16_t bits;
    memcpy(&bits, static_cast<Matrices *>(lanes[row])->row + 2 * column, 2);
    return bits;
}

template <bool transposed>
void ldmatrix_step(void *(&lanes)[32]) {
    for (int lane = 0; lane < 32; lane++) {
        const int r = lane / 4, c = 2 * (lane % 4);
        for (int m = 0; m < 4; m++) {
            uint32_t &pair = static_cast<Matrices *>(lanes[lane])->r[m];
            if (transposed) {
                pair = element(lanes, 8 * m + c, r) | static_cast<uint32_t>(element(lanes, 8 * m + c + 1, r)) << 16;
            } else {
                memcpy(&pair, static_cast<Matrices *>(lanes[8 * m + r])->row + 2 * c, 4);
            }
        }
    }
}

struct Products {
    unsigned count;
    float (*c)[4];
    const uint32_t (*a)[4], (*b)[2];
};

// Row is a row of a matrix with eight columns.
typedef double Row __attribute__((vector_size(64)));

// mma_step computes mma.m16n8k16 with the layouts of the PTX manual. It adds in double and rounds each element once.
template <float (*widen)(uint16_t)>
void mma_step(void *(&lanes)[32]) {
    for (unsigned n = 0; n < static_cast<Products *>(lanes[0])->count; n++) {
        // The right matrix has its columns one after the other. A lane has two neighbours in each word.
        uint16_t left[16][16], right[8][16];
        float sums[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const Products &p = *static_cast<Products *>(lanes[lane]);
            const int g = lane / 4, j = 2 * (lane % 4);
            for (int i = 0; i < 4; i++) memcpy(&left[g + 8 * (i % 2)][j + 8 * (i / 2)], &p.a[n][i], 4);
            for (int i = 0; i < 2; i++) memcpy(&right[g][j + 8 * i], &p.b[n][i], 4);
            for (int i = 0; i < 2; i++) memcpy(&sums[g + 8 * i][j], &p.c[n][2 * i], 8);
        }
        // float, because the compiler calls a function for each conversion of fp16 to double
        float a[16][16], columns[8][16];
        for (int row = 0; row < 16; row++)
            for (int k = 0; k < 16; k++) a[row][k] = widen(left[row][k]);
        for (int column = 0; column < 8; column++)
            for (int k = 0; k < 16; k++) columns[column][k] = widen(right[column][k]);
        Row b[16];
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) b[k][column] = columns[column][k];
        for (int row = 0; row < 16; row++) {
            Row sum;
            for (int column = 0; column < 8; column++) sum[column] = sums[row][column];
            for (int k = 0; k < 16; k++) sum += double(a[row][k]) * b[k];
            for (int column = 0; column < 8; column++) sums[row][column] = static_cast<float>(sum[column]);
        }
        for (int lane = 0; lane < 32; lane++) {
            const Products &p = *static_cast<Products *>(lanes[lane]);
            for (int i = 0; i < 2; i++) memcpy(&p.c[n][2 * i], &sums[lane / 4 + 8 * i][2 * (lane % 4)], 8);
        }
    }
}

void Fiber::barrier() { processor->wait_for_block(); }

void Fiber::warp_barrier() {
    static const char operation = 0;
    processor->wait_for_warp(&operation, nullptr, nullptr);
}

uint32_t Fiber::shuffle(uint32_t value, uint32_t mask) {
    Shuffle lane = {value, 0, mask};
    processor->wait_for_warp(reinterpret_cast<void *>(shuffle_step), &lane, shuffle_step);
    return lane.result;
}

void Fiber::ldmatrix(uint32_t (&r)[4], uint32_t address, bool transposed) {
    Matrices lane = {r, shared(address, 16)};
    const auto step = transposed ? ldmatrix_step<true> : ldmatrix_step<false>;
    processor->wait_for_warp(reinterpret_cast<void *>(step), &lane, step);
}

void Fiber::mma(unsigned count, float (*c)[4], const uint32_t (*a)[4], const uint32_t (*b)[2], Half type) {
    static const char operations[2][most_products + 1] = {};
    Products lane = {count, c, a, b};
    processor->wait_for_warp(&operations[type][count], &lane, type == bf16 ? mma_step<from_bf16> : mma_step<from_fp16>);
}

// Asynchronous copies.

void Fiber::complete(std::vector<Copy> &copies) {
    for (const Copy &c : copies) {
        memset(c.to, 0, 16);
        memcpy(c.to, c.from, c.bytes);
    }
}

void Fiber::copy_async(uint32_t to, uint64_t from, uint32_t bytes) {
    if (bytes > 16) processor->fail(launch_failed, "cp.async of %u bytes", bytes);
    Copy c = {shared(to, 16), reinterpret_cast<unsigned char *>(from), bytes};
    if (bytes > 0) global(from, 16); // checks the address; if it is in no allocation, reading it later is a fault
    open.push_back(c);
    if (!processor->late()) {
        std::vector<Copy> now = {c};
        complete(now);
    }
}

void Fiber::copy_commit() {
    groups.push_back(std::move(open));
    open.clear();
}

void Fiber::copy_wait(int left) {
    while (static_cast<int>(groups.size()) > left) {
        if (processor->late()) complete(groups.front());
        groups.pop_front();
    }
}

// Faults.

void Fiber::unsupported(const char *what) { processor->fail(launch_failed, "%s is not simulated", what); }

void Fiber::shared_fault(uint32_t address, unsigned bytes) {
    processor->fail(illegal_address, "%u bytes at %lld of %u bytes of shared memory", bytes,
                    static_cast<long long>(address) - shared_base, shared_bytes);
}

void Fiber::global_fault(uint64_t address, unsigned bytes) {
    processor->fail(illegal_address, "%u bytes at %#llx are outside of every allocation", bytes, static_cast<unsigned long long>(address));
}

void Fiber::misaligned_fault(const char *space, uint64_t address, unsigned bytes) {
    processor->fail(misaligned_address, "%u bytes of %s memory at %#llx, not aligned to that size", bytes, space,
                    static_cast<unsigned long long>(address));
}

// Signals.

struct sigaction before[65];

void on_signal(int number, siginfo_t *info, void *context) {
    if (Processor *p = current) {
        current = nullptr;
        if (number == SIGFPE) p->fail(launch_failed, "an integer division by zero");
        p->fail(illegal_address, "address %p is outside of every allocation", info->si_addr);
    }
    const struct sigaction &old = before[number];
    if (old.sa_flags & SA_SIGINFO) {
        old.sa_sigaction(number, info, context);
    } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
        signal(number, SIG_DFL); // the signal recurs at once and then ends the process
    } else {
        old.sa_handler(number);
    }
}

// SignalStack is the stack on which signal handlers run on this host thread, instead of the stack of a fiber.
class SignalStack {
  public:
    SignalStack() {
        stack_t mine = {};
        mine.ss_sp = memory.get();
        mine.ss_size = size;
        sigaltstack(&mine, &previous);
    }
    ~SignalStack() { sigaltstack(&previous, nullptr); }

  private:
    static constexpr size_t size = 64 << 10;
    std::unique_ptr<char[]> memory{new char[size]};
    stack_t previous = {};
};

// Helpers are additional host threads. They help with one launch or one matrix product at a time.
class Helpers {
  public:
    static Helpers &all() {
        static Helpers *one = new Helpers; // never destroyed: its threads run until the process ends
        return *one;
    }

    // run_with runs work on this thread. If there are several blocks and the helpers are free, it also runs work on all
    // helpers.
    void run_with(uint64_t blocks, const std::function<void()> &work) {
        std::unique_lock<std::mutex> mine(taken, std::try_to_lock);
        if (blocks < 2 || threads == 0 || !mine) {
            work();
            return;
        }
        {
            const std::lock_guard<std::mutex> guard(lock);
            job = &work, round++, left = threads;
        }
        begin.notify_all();
        work();
        std::unique_lock<std::mutex> guard(lock);
        end.wait(guard, [this] { return left == 0; });
    }

  private:
    Helpers() {
        for (unsigned t = 1; t < std::thread::hardware_concurrency() && t < 16; t++, threads++)
            quiet_thread([this] { help(); }).detach();
    }

    void help() {
        for (uint64_t seen = 0;;) {
            const std::function<void()> *mine;
            {
                std::unique_lock<std::mutex> guard(lock);
                begin.wait(guard, [&] { return round != seen; });
                seen = round, mine = job;
            }
            (*mine)();
            const std::lock_guard<std::mutex> guard(lock);
            if (--left == 0) end.notify_one();
        }
    }

    std::mutex taken, lock;
    std::condition_variable begin, end;
    const std::function<void()> *job = nullptr;
    uint64_t round = 0;
    unsigned threads = 0, left = 0;
};

} // namespace

void parallel(uint64_t count, const std::function<void(uint64_t)> &work) {
    std::atomic<uint64_t> next{0};
    Helpers::all().run_with(count, [&] {
        for (uint64_t i; (i = next++) < count;) work(i);
    });
}

std::thread quiet_thread(std::function<void()> work) {
    sigset_t all, before;
    sigfillset(&all);
    for (int number : {SIGSEGV, SIGBUS, SIGFPE}) sigdelset(&all, number);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread t(std::move(work));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return t;
}

void catch_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        // SA_NODEFER, because the handler of a fault switches to another stack and never returns.
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int number : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(number, &action, &before[number]);
    });
}

Fault run(const Launch &launch) {
    const uint64_t blocks = static_cast<uint64_t>(launch.grid.x) * launch.grid.y * launch.grid.z;
    std::vector<uint64_t> sequence(blocks);
    for (uint64_t b = 0; b < blocks; b++) sequence[b] = launch.order == 1 ? blocks - 1 - b : b;
    if (launch.order > 1) std::shuffle(sequence.begin(), sequence.end(), std::mt19937_64(launch.order));

    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex lock;
    Fault first;
    Helpers::all().run_with(blocks, [&] {
        // Pointers, because a library with an initial-exec variable has little space for other thread-local variables.
        static thread_local const std::unique_ptr<SignalStack> stack(new SignalStack);
        static thread_local const std::unique_ptr<Processor> mine(new Processor);
        Processor &processor = *mine;
        processor.fault = {};
        for (uint64_t i; !failed && (i = next++) < blocks;) {
            processor.run_block(launch, sequence[i]);
            if (processor.fault.code == 0) continue;
            failed = true;
            const std::lock_guard<std::mutex> guard(lock);
            if (first.code == 0) first = processor.fault;
        }
    });
    if (first.code == 0) {
        const std::string damage = launch.memory->damaged();
        if (!damage.empty()) first = {launch_failed, std::string(launch.kernel->name) + ": " + damage};
    }
    return first;
}

} // namespace softgpu
