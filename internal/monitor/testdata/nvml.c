// A libnvidia-ml of three GPUs for tests. The GPU on bus 2 has no sensor for power. That on bus 4 is lost after its first
// sample, as after a crash of the driver or of the GPU. No other bus has a GPU. If the environment variable NVML_HANGS is
// the name of a function, that function never returns.

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { success = 0, not_supported = 3, not_found = 6, gpu_is_lost = 15 };

typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;

static const int buses[] = {1, 2, 4};

static void enter(const char *name) {
    const char *hangs = getenv("NVML_HANGS");
    while (hangs != NULL && strcmp(hangs, name) == 0) sleep(1);
}

static unsigned bus(const void *device) { return *(const int *)device; }

static int samples; // of the GPU on bus 4

static int lost(const void *device) { return bus(device) == 4 && samples > 1; }

int nvmlInit_v2(void) { enter("init"); return success; }
int nvmlShutdown(void) { return success; }
const char *nvmlErrorString(int code) { return code == success ? "success" : "an error"; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, const void **device) {
    static const char *addresses[] = {"00000000:01:00.0", "00000000:02:00.0", "00000000:04:00.0"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(address, addresses[i]) == 0) { *device = &buses[i]; return success; }
    }
    return not_found;
}

int nvmlDeviceGetUtilizationRates(const void *device, nvmlUtilization_t *percent) {
    enter("utilization");
    samples += bus(device) == 4;
    if (lost(device)) return gpu_is_lost;
    percent->gpu = 90 + bus(device);
    percent->memory = 40;
    return success;
}

int nvmlDeviceGetMemoryInfo(const void *device, nvmlMemory_t *bytes) {
    if (lost(device)) return gpu_is_lost;
    bytes->total = 80ULL << 30;
    bytes->used = (unsigned long long)bus(device) << 30;
    bytes->free = bytes->total - bytes->used;
    return success;
}

int nvmlDeviceGetTemperature(const void *device, int sensor, unsigned *celsius) {
    if (lost(device)) return gpu_is_lost;
    if (sensor != 0) return not_supported;
    *celsius = 60 + bus(device);
    return success;
}

int nvmlDeviceGetPowerUsage(const void *device, unsigned *milliwatts) {
    if (lost(device)) return gpu_is_lost;
    if (bus(device) == 2) return not_supported;
    *milliwatts = 512500;
    return success;
}

int nvmlDeviceGetClockInfo(const void *device, int clock, unsigned *megahertz) {
    if (lost(device)) return gpu_is_lost;
    if (clock != 1) return not_supported;
    *megahertz = 1980;
    return success;
}
