// The scheduler: threads of a block as fibers, barriers, warp operations,
// asynchronous copies, shared memory.
#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <random>
#include <string>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace hostsim {

Launch launch;
Entry *Entry::first = nullptr;

namespace {

struct Copy {
    void *to;
    const void *from;
    int bytes;
};

enum State { runnable, at_barrier, in_warp, ended };

struct Fiber {
    State state;
    unsigned char *stack;
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
};

struct Warp {
    uint32_t ready; // lanes that can run
    int arrived;
    const void *operation;
    void *brought[32];
};

constexpr size_t stack_bytes = 128 << 10;

std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<int> preference; // of warps, best first
int waiting, finished, running;
uint64_t order_seed;
std::mt19937_64 random_bits;
const Entry *entry;
const uint64_t *arguments;

struct Array {
    const char *file;
    int line;
    Guarded memory;
};
std::vector<Array> arrays;

#ifdef __x86_64__
void *scheduler_sp;
extern "C" void hostsim_switch(void **save, void *load);
asm(R"(
.text
.globl hostsim_switch
hostsim_switch:
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
void enter(Fiber &f) { hostsim_switch(&scheduler_sp, f.sp); }
void leave(Fiber &f) { hostsim_switch(&f.sp, scheduler_sp); }
#else
ucontext_t scheduler_context;
void enter(Fiber &f) { swapcontext(&scheduler_context, &f.context); }
void leave(Fiber &f) { swapcontext(&f.context, &scheduler_context); }
#endif

void land(const std::vector<Copy> &group) {
    for (const Copy &c : group) {
        memset(c.to, 0, 16);
        memcpy(c.to, c.from, c.bytes);
    }
}

void body() {
    entry->call(entry->kernel, arguments);
    Fiber &f = fibers[running];
    if (!f.open.empty() || std::any_of(f.groups.begin(), f.groups.end(), [](const auto &g) { return !g.empty(); }))
        fail("%s ends with copies that it has not waited for", entry->name);
    f.state = ended;
    finished++;
    leave(f);
}

void prepare(Fiber &f) {
    if (f.stack == nullptr) {
        void *stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) fail("out of host memory for stacks");
        f.stack = static_cast<unsigned char *>(stack);
    }
    f.state = runnable;
    f.open.clear();
    f.groups.clear();
#ifdef __x86_64__
    // six saved registers, then where to return to; a function finds its stack
    // 8 bytes off a border of 16
    void **top = reinterpret_cast<void **>(f.stack + stack_bytes) - 1;
    *--top = reinterpret_cast<void *>(body);
    f.sp = top - 6;
    memset(f.sp, 0, 6 * sizeof(void *));
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = stack_bytes;
    f.context.uc_link = &scheduler_context;
    makecontext(&f.context, body, 0);
#endif
}

void prefer() {
    if (order_seed > 1) std::shuffle(preference.begin(), preference.end(), random_bits);
}

// pick chooses the fiber to run: the preferred warp as far as it comes, so
// that it runs ahead of the others wherever nothing holds it back.
int pick() {
    if (order_seed > 1 && random_bits() % 64 == 0) prefer();
    for (int w : preference) {
        const uint32_t ready = warps[w].ready;
        if (ready == 0) continue;
        int lane = __builtin_ctz(ready);
        if (order_seed == 1) lane = 31 - __builtin_clz(ready);
        if (order_seed > 1) {
            lane = random_bits() % 32;
            while (!(ready >> lane & 1)) lane = (lane + 1) % 32;
        }
        return 32 * w + lane;
    }
    return -1;
}

void block(State state) {
    Fiber &f = fibers[running];
    f.state = state;
    warps[running / 32].ready &= ~(1u << running % 32);
    leave(f);
}

void run_block(unsigned threads) {
    waiting = finished = 0;
    for (unsigned t = 0; t < threads; t++) prepare(fibers[t]);
    for (Warp &w : warps) w.ready = ~0u, w.arrived = 0;
    prefer();
    for (;;) {
        running = pick();
        if (running < 0) break;
        launch.thread = {static_cast<unsigned>(running), 0, 0};
        enter(fibers[running]);
        if (fibers[running].state == ended) warps[running / 32].ready &= ~(1u << running % 32);
    }
    if (finished == static_cast<int>(threads)) return;
    int in_warps = 0;
    for (unsigned t = 0; t < threads; t++) in_warps += fibers[t].state == in_warp;
    fail("%s hangs: %d threads wait at a barrier and %d for their warp, %d have ended", entry->name, waiting, in_warps,
         finished);
}

} // namespace

void set_order(uint64_t seed) {
    order_seed = seed;
    random_bits.seed(seed);
}

void run(const Entry &kernel, Index grid, unsigned threads, size_t shared, const uint64_t *slots) {
    if (threads == 0 || threads % 32 != 0 || threads > static_cast<unsigned>(kernel.threads))
        fail("%s takes up to %d threads in whole warps, not %u", kernel.name, kernel.threads, threads);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535)
        fail("%s: a grid of %u x %u x %u", kernel.name, grid.x, grid.y, grid.z);
    if (shared > 101376) fail("%s: %zu bytes of shared memory", kernel.name, shared);
    entry = &kernel;
    arguments = slots;
    fibers.resize(std::max<size_t>(fibers.size(), threads));
    warps.assign(threads / 32, Warp());
    preference.resize(threads / 32);
    for (size_t w = 0; w < preference.size(); w++) preference[w] = order_seed == 1 ? preference.size() - 1 - w : w;

    const Guarded dynamic = map_guarded(shared);
    const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    std::vector<uint64_t> sequence(blocks);
    for (uint64_t b = 0; b < blocks; b++) sequence[b] = order_seed == 1 ? blocks - 1 - b : b;
    if (order_seed > 1) std::shuffle(sequence.begin(), sequence.end(), random_bits);
    for (uint64_t b : sequence) {
        launch.grid = grid;
        launch.block = {threads, 1, 1};
        launch.index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                        static_cast<unsigned>(b / grid.x / grid.y)};
        launch.shared = dynamic.address;
        poison(dynamic);
        for (const Array &a : arrays) poison(a.memory);
        run_block(threads);
        bool whole = intact(dynamic);
        for (const Array &a : arrays) whole = whole && intact(a.memory);
        if (!whole) fail("%s has written beside its shared memory", kernel.name);
    }
    munmap(dynamic.pages, dynamic.mapped);
    for (const Array &a : arrays) munmap(a.memory.pages, a.memory.mapped);
    arrays.clear();
    check_zones(kernel.name);
}

void barrier() {
    if (++waiting < static_cast<int>(launch.block.x)) {
        block(at_barrier);
        return;
    }
    waiting = 0;
    for (unsigned t = 0; t < launch.block.x; t++) {
        fibers[t].state = runnable;
        warps[t / 32].ready |= 1u << t % 32;
    }
    prefer();
}

void together(const void *operation, void *brought, void (*step)(void *(&lanes)[32])) {
    Warp &w = warps[running / 32];
    if (w.arrived > 0 && w.operation != operation) fail("%s: the lanes of a warp are at different operations", entry->name);
    w.operation = operation;
    w.brought[running % 32] = brought;
    if (++w.arrived < 32) {
        block(in_warp);
        return;
    }
    w.arrived = 0;
    step(w.brought);
    const int first = running / 32 * 32;
    for (int t = first; t < first + 32; t++) fibers[t].state = runnable;
    w.ready = ~0u;
}

void *array(const char *file, int line, size_t bytes) {
    for (const Array &a : arrays)
        if (a.line == line && std::string(a.file) == file) return a.memory.address;
    arrays.push_back({file, line, map_guarded(bytes)});
    return arrays.back().memory.address;
}

void check_shared(const void *address, size_t bytes, size_t alignment) {
    const auto inside = [&](const unsigned char *from, size_t size) {
        const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(from);
        return offset < size && offset + bytes <= size;
    };
    if (reinterpret_cast<uintptr_t>(address) % alignment != 0)
        fail("%s: an address in shared memory is not a multiple of %zu", entry->name, alignment);
    // dynamic shared memory ends at a guard page, static arrays are checked
    // through it too: the range alone is left to test
    if (inside(launch.shared, 101376)) return;
    for (const Array &a : arrays)
        if (inside(a.memory.address, a.memory.size)) return;
    fail("%s: an address is not in shared memory", entry->name);
}

void begin_copy(void *to, const void *from, int bytes) {
    check_shared(to, 16, 16);
    if (bytes < 0 || bytes > 16) fail("%s: cp.async of %d bytes", entry->name, bytes);
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0) fail("%s: cp.async from an address that is no multiple of 16", entry->name);
    if (bytes > 0) check_global(from, bytes, entry->name);
    std::vector<Copy> &open = fibers[running].open;
    open.push_back({to, from, bytes});
    if (order_seed % 2 == 1) land({open.back()});
}

void commit_copies() {
    Fiber &f = fibers[running];
    f.groups.push_back(std::move(f.open));
    f.open.clear();
}

void wait_copies(int groups) {
    Fiber &f = fibers[running];
    while (static_cast<int>(f.groups.size()) > groups) {
        if (order_seed % 2 == 0) land(f.groups.front());
        f.groups.pop_front();
    }
}

} // namespace hostsim
