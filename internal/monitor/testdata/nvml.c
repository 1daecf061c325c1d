// A libnvidia-ml of two GPUs for tests. The GPU on bus 2 has no sensor for power, and no other bus has a GPU. If the
// environment variable NVML_HANGS is the name of a function, that function never returns.

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { success = 0, not_supported = 3, not_found = 6 };

typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;

static const int buses[] = {1, 2};

static void enter(const char *name) {
    const char *hangs = getenv("NVML_HANGS");
    while (hangs != NULL && strcmp(hangs, name) == 0) sleep(1);
}

static unsigned bus(const void *device) { return *(const int *)device; }

int nvmlInit_v2(void) { enter("init"); return success; }
int nvmlShutdown(void) { return success; }
const char *nvmlErrorString(int code) { return code == success ? "success" : "an error"; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, const void **device) {
    for (int i = 0; i < 2; i++) {
        if (strcmp(address, buses[i] == 1 ? "00000000:01:00.0" : "00000000:02:00.0") == 0) { *device = &buses[i]; return success; }
    }
    return not_found;
}

int nvmlDeviceGetUtilizationRates(const void *device, nvmlUtilization_t *percent) {
    enter("utilization");
    percent->gpu = 90 + bus(device);
    percent->memory = 40;
    return success;
}

int nvmlDeviceGetMemoryInfo(const void *device, nvmlMemory_t *bytes) {
    bytes->total = 80ULL << 30;
    bytes->used = (unsigned long long)bus(device) << 30;
    bytes->free = bytes->total - bytes->used;
    return success;
}

int nvmlDeviceGetTemperature(const void *device, int sensor, unsigned *celsius) {
    if (sensor != 0) return not_supported;
    *celsius = 60 + bus(device);
    return success;
}

int nvmlDeviceGetPowerUsage(const void *device, unsigned *milliwatts) {
    if (bus(device) == 2) return not_supported;
    *milliwatts = 512500;
    return success;
}

int nvmlDeviceGetClockInfo(const void *device, int clock, unsigned *megahertz) {
    if (clock != 1) return not_supported;
    *megahertz = 1980;
    return success;
}
