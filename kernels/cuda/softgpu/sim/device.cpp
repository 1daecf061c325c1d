#include "device.h"

#include <algorithm>
#include <chrono>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

namespace softgpu {

void log_line(const char *format, ...) {
    char text[500];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "softgpu: %s\n", text);
}

int refuse(int code, const char *format, ...) {
    char text[500];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "softgpu: refused with %d: %s\n", code, text);
    return code;
}

Driver &driver() {
    static Driver *one = new Driver; // never destroyed: its threads run until the process ends
    return *one;
}

namespace {

std::vector<std::string> split(const std::string &text) {
    std::vector<std::string> parts;
    for (size_t from = 0; from <= text.size();) {
        size_t to = text.find(',', from);
        if (to == std::string::npos) to = text.size();
        if (to > from) parts.push_back(text.substr(from, to - from));
        from = to + 1;
    }
    return parts;
}

std::string variable(const char *name) {
    const char *value = getenv(name);
    return value == nullptr ? "" : value;
}

} // namespace

bool Settings::read_environment() {
    *this = Settings();
    bool good = true;
    const auto number = [&](const char *name, uint64_t otherwise) -> uint64_t {
        const std::string text = variable(name);
        char *end = nullptr;
        const uint64_t value = strtoull(text.c_str(), &end, 10);
        if (text.empty()) return otherwise;
        if (*end != 0) log_line("%s=%s is not a number", name, text.c_str()), good = false;
        return value;
    };
    memory = number("SOFTGPU_MEMORY", memory);
    seed = number("SOFTGPU_SEED", seed);
    driver = static_cast<int>(number("SOFTGPU_DRIVER", driver));
    blocking = variable("CUDA_LAUNCH_BLOCKING") == "1";
    const std::string list = variable("SOFTGPU_DEVICES");
    if (list.find("sm_") != std::string::npos) {
        architectures.clear();
        for (const std::string &a : split(list)) {
            architectures.push_back(a.rfind("sm_", 0) == 0 ? atoi(a.c_str() + 3) : 0);
            if (architectures.back() < 10) log_line("SOFTGPU_DEVICES=%s: %s is not an architecture", list.c_str(), a.c_str()), good = false;
        }
    } else {
        architectures.assign(number("SOFTGPU_DEVICES", 1), 90);
    }
    static const std::set<std::string> known = {"alloc", "launch", "kernel", "hang", "lost", "nowait", "refuse"};
    for (const std::string &f : split(variable("SOFTGPU_FAULT"))) {
        const size_t colon = f.find(':');
        const std::string name = f.substr(0, colon);
        if (colon == std::string::npos || known.count(name) == 0) {
            log_line("SOFTGPU_FAULT: unknown fault %s", f.c_str()), good = false;
            continue;
        }
        faults.insert({name, f.substr(colon + 1)});
    }
    return good;
}

bool Settings::hit(const char *fault, uint64_t count) const {
    const auto range = faults.equal_range(fault);
    for (auto f = range.first; f != range.second; ++f)
        if (strtoull(f->second.c_str(), nullptr, 10) == count) return true;
    return false;
}

bool Settings::starts(const char *fault, const std::string &name) const {
    const auto range = faults.equal_range(fault);
    for (auto f = range.first; f != range.second; ++f)
        if (name.compare(0, f->second.size(), f->second) == 0) return true;
    return false;
}

Device::Device(int ordinal, int architecture) : ordinal(ordinal), architecture(architecture) { restart(); }

void Device::restart() {
    contexts = 0;
    release();
    broken = 0;
    draw.seed(driver().settings.seed * 1000 + ordinal);
}

Stream *Device::new_stream() {
    auto *s = new Stream;
    s->preference = draw();
    streams.insert(s);
    return s;
}

double Device::now() const {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(since).count();
}

bool Device::in_pinned(const void *address, size_t bytes) const {
    auto found = pinned.upper_bound(const_cast<void *>(address));
    if (found == pinned.begin()) return false;
    --found;
    const size_t offset = static_cast<const char *>(address) - static_cast<const char *>(found->first);
    return offset <= found->second && found->second - offset >= bytes;
}

void Device::add(Stream *s, Work w) {
    w.number = driver().queued++;
    s->queue.push_back(std::move(w));
    if (!started) {
        started = true;
        quiet_thread([this] { work(); }).detach();
    }
    driver().changed.notify_all();
}

int Device::wait_until(std::unique_lock<std::mutex> &held, const std::function<bool()> &condition) {
    const auto place = conditions.insert(conditions.end(), &condition);
    driver().changed.notify_all();
    driver().changed.wait(held, [&] { return broken != 0 || condition(); });
    conditions.erase(place);
    return broken;
}

int Device::drain(std::unique_lock<std::mutex> &held) {
    return wait_until(held, [this] {
        for (const auto *set : {&streams, &destroyed})
            for (const Stream *s : *set)
                if (!s->idle()) return false;
        return true;
    });
}

void Device::finish(std::unique_lock<std::mutex> &held) {
    driver().changed.wait(held, [this] {
        for (const auto *set : {&streams, &destroyed})
            for (const Stream *s : *set)
                if (s->running) return false;
        return true;
    });
}

void Device::break_context(int code, const std::string &text) {
    if (broken != 0) return;
    broken = code;
    driver().last_fault = text;
    log_line("device %d is out of use, %d: %s", ordinal, code, text.c_str());
    driver().changed.notify_all();
}

void Device::release() {
    for (const auto *set : {&streams, &destroyed})
        for (Stream *s : *set) delete s;
    streams.clear(), destroyed.clear();
    for (Event *e : events) delete e;
    events.clear();
    for (LoadedModule *m : modules) delete m;
    modules.clear(), functions.clear();
    for (const auto &p : pinned) delete_pinned(p.first, p.second);
    pinned.clear();
    memory.release_all();
}

// choose returns a stream whose first entry may be executed now, or null.
Stream *Device::choose() {
    std::vector<Stream *> ready;
    size_t queued = 0;
    for (const auto *set : {&streams, &destroyed})
        for (Stream *s : *set) {
            queued += s->queue.size();
            if (s->ready()) ready.push_back(s);
        }
    if (ready.empty() || broken != 0) return nullptr;
    if (driver().settings.seed == 0) {
        Stream *first = ready[0];
        for (Stream *s : ready)
            if (s->queue.front().number < first->queue.front().number) first = s;
        return first;
    }
    // Work is executed only while a thread of the program waits for something that has not happened, or if 200 entries
    // are queued. So the order does not depend on how fast the program's threads are.
    const bool awaited = std::any_of(conditions.begin(), conditions.end(), [](const auto *holds) { return !(*holds)(); });
    if (!awaited && queued < 200) return nullptr;
    // The preferred stream runs as far as its events allow before the others, so that missing waits show.
    Stream *preferred = ready[0];
    for (Stream *s : ready)
        if (s->preference > preferred->preference) preferred = s;
    if (draw() % 64 == 0) preferred->preference = draw();
    return preferred;
}

// work executes the queued work of the device, on a host thread of its own, until the process ends.
void Device::work() {
    Driver &d = driver();
    std::unique_lock<std::mutex> held(d.lock);
    for (;;) {
        Stream *s = nullptr;
        d.changed.wait(held, [&] { return (s = choose()) != nullptr; });
        const std::function<Fault()> run = s->queue.front().run;
        s->running = true;
        Fault fault;
        if (run) {
            held.unlock();
            fault = run();
            held.lock();
        }
        s->running = false;
        const std::shared_ptr<EventRecord> record = s->queue.front().completes;
        if (record != nullptr && fault.code == 0 && broken == 0) record->done = true, record->milliseconds = now();
        s->queue.pop_front();
        if (s->idle() && destroyed.erase(s) > 0) delete s;
        if (fault.code != 0) break_context(fault.code, fault.text);
        d.changed.notify_all();
    }
}

} // namespace softgpu
