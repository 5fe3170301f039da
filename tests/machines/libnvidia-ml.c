/* A libnvidia-ml.so.1 that pynvml loads for real. Signatures and numbers: nvml.h. */
#include "simulated.h"

enum { INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, UNINITIALIZED = 1, NO_PERMISSION = 4 };

static int initialised;

int nvmlInitWithFlags(unsigned flags) {
    int result = init(NO_PERMISSION);
    initialised = !result;
    return result;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 0: return "Success";
    case 1: return "Uninitialized";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 12: return "NVML Shared Library Not Found";
    case 15: return "GPU is lost";
    case 17: return "The operating system has blocked the request";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

static int text(char *to, unsigned size, const char *from) {
    return snprintf(to, size, "%s", from) < (int)size ? 0 : 7; /* insufficient size */
}

int nvmlSystemGetDriverVersion(char *to, unsigned size) {
    return initialised ? text(to, size, DRIVER_VERSION) : UNINITIALIZED;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = CUDA_VERSION; return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = GPU_COUNT;
    return initialised ? 0 : UNINITIALIZED;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, const struct gpu **gpu) {
    if (index >= GPU_COUNT) return INVALID_ARGUMENT;
    *gpu = &all[index];
    return all[index].error;
}
int nvmlDeviceGetName(const struct gpu *gpu, char *to, unsigned size) { return text(to, size, gpu->name); }
int nvmlDeviceGetUUID(const struct gpu *gpu, char *to, unsigned size) { return text(to, size, gpu->uuid); }

struct pci_info {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};
int nvmlDeviceGetPciInfo_v3(const struct gpu *gpu, struct pci_info *info) {
    if (gpu->limited) return NOT_SUPPORTED;
    memset(info, 0, sizeof *info);
    sscanf(gpu->pci, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    snprintf(info->bus_id, sizeof info->bus_id, "%08X:%02X:%02X.0", info->domain, info->bus, info->device);
    snprintf(info->legacy, sizeof info->legacy, "%04X:%02X:%02X.0", info->domain & 0xffff, info->bus & 0xff,
             info->device & 0xff);
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(const struct gpu *gpu, int *major, int *minor) {
    if (gpu->limited) return NOT_SUPPORTED;
    *major = gpu->major;
    *minor = gpu->minor;
    return 0;
}
int nvmlDeviceGetMemoryInfo(const struct gpu *gpu, unsigned long long *total_free_used) {
    if (gpu->limited) return NOT_SUPPORTED;
    total_free_used[0] = gpu->memory;
    total_free_used[2] = 512ULL << 20;
    total_free_used[1] = gpu->memory - total_free_used[2];
    return 0;
}
