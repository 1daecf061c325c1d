// The simulated device as a process: commands on standard input, answers on
// standard output, both little-endian. hostsim.go speaks the other side.
//
//   command                                              answer after the status
//   'A' size:u64                                         address:u64
//   'F' address:u64
//   'W' address:u64 size:u64 bytes
//   'R' address:u64 size:u64                             bytes
//   'S' seed:u64
//   'L' name:text grid:3·u32 threads:u32 shared:u32 count:u32 slots:count·u64
//   'K'                                                  count:u32 (name:text threads:u32)…
//
// text is a length:u32 and its bytes. The status is 0, or 1 and a text that
// says what went wrong; after that the process ends.
#include "block.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace {

std::string kernel; // that runs

void answer(const void *bytes, size_t n) {
    const char *p = static_cast<const char *>(bytes);
    while (n > 0) {
        const ssize_t written = write(1, p, n);
        if (written <= 0) _exit(1);
        p += written, n -= written;
    }
}

template <class T>
void answer(T value) {
    answer(&value, sizeof value);
}

void answer(const std::string &text) {
    answer(static_cast<uint32_t>(text.size()));
    answer(text.data(), text.size());
}

void read_exactly(void *to, size_t n) {
    if (fread(to, 1, n, stdin) != n) _exit(0);
}

template <class T>
T read() {
    T value;
    read_exactly(&value, sizeof value);
    return value;
}

std::string read_text() {
    std::string text(read<uint32_t>(), 0);
    read_exactly(&text[0], text.size());
    return text;
}

void *address(uint64_t at) { return reinterpret_cast<void *>(at); }

void fault(int number) {
    char text[200];
    const char *what = number == SIGILL ? "a misaligned access or an index outside an array"
                                        : "an access outside global or shared memory";
    const int n = snprintf(text, sizeof text, "%s: %s", kernel.c_str(), what);
    answer(static_cast<uint8_t>(1));
    answer(static_cast<uint32_t>(n));
    answer(text, n);
    _exit(1);
}

void catch_faults() {
    constexpr size_t size = 64 << 10;
    stack_t stack = {};
    stack.ss_sp = malloc(size);
    stack.ss_size = size;
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_handler = fault;
    action.sa_flags = SA_ONSTACK;
    for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigaction(number, &action, nullptr);
}

void launch_kernel() {
    kernel = read_text();
    const hostsim::Index grid = {read<uint32_t>(), read<uint32_t>(), read<uint32_t>()};
    const uint32_t threads = read<uint32_t>(), shared = read<uint32_t>();
    std::vector<uint64_t> slots(read<uint32_t>());
    read_exactly(slots.data(), 8 * slots.size());
    for (const hostsim::Entry *e = hostsim::Entry::first; e != nullptr; e = e->next) {
        if (kernel != e->name) continue;
        if (e->arity != slots.size())
            hostsim::fail("%s takes %zu parameters, not %zu", e->name, e->arity, slots.size());
        hostsim::run(*e, grid, threads, shared, slots.data());
        answer(static_cast<uint8_t>(0));
        return;
    }
    hostsim::fail("no kernel is called %s", kernel.c_str());
}

void list_kernels() {
    uint32_t count = 0;
    for (const hostsim::Entry *e = hostsim::Entry::first; e != nullptr; e = e->next) count++;
    answer(static_cast<uint8_t>(0));
    answer(count);
    for (const hostsim::Entry *e = hostsim::Entry::first; e != nullptr; e = e->next) {
        answer(std::string(e->name));
        answer(static_cast<uint32_t>(e->threads));
    }
}

} // namespace

void hostsim::fail(const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    answer(static_cast<uint8_t>(1));
    answer(std::string(text));
    _exit(1);
}

int main() {
    catch_faults();
    for (;;) {
        const char command = read<char>();
        switch (command) {
        case 'A': {
            const void *at = hostsim::allocate(read<uint64_t>());
            answer(static_cast<uint8_t>(0));
            answer(reinterpret_cast<uint64_t>(at));
            break;
        }
        case 'F':
            hostsim::release(address(read<uint64_t>()));
            answer(static_cast<uint8_t>(0));
            break;
        case 'W': {
            void *to = address(read<uint64_t>());
            const uint64_t size = read<uint64_t>();
            hostsim::check_global(to, size, "a write from the host");
            read_exactly(to, size);
            answer(static_cast<uint8_t>(0));
            break;
        }
        case 'R': {
            const void *from = address(read<uint64_t>());
            const uint64_t size = read<uint64_t>();
            hostsim::check_global(from, size, "a read by the host");
            answer(static_cast<uint8_t>(0));
            answer(from, size);
            break;
        }
        case 'S':
            hostsim::set_order(read<uint64_t>());
            answer(static_cast<uint8_t>(0));
            break;
        case 'L':
            launch_kernel();
            break;
        case 'K':
            list_kernels();
            break;
        default:
            hostsim::fail("command %d is not known", command);
        }
    }
}
