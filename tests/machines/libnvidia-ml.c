/* A libnvidia-ml.so.1 that pynvml loads for real. Signatures and numbers: nvml.h. */
#include "simulated.h"

enum { UNINITIALIZED = 1, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, INSUFFICIENT_SIZE };

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
    case 6: return "Not Found";
    case 7: return "Insufficient Size";
    case 9: return "Driver Not Loaded";
    case 12: return "NVML Shared Library Not Found";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 17: return "The operating system has blocked the request";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

static int text(char *to, unsigned size, const char *from) {
    return snprintf(to, size, "%s", from) < (int)size ? 0 : INSUFFICIENT_SIZE;
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
/* The handle of a MIG device is the address of its place in `instances`. */
int nvmlDeviceGetUUID(const struct gpu *gpu, char *to, unsigned size) {
    for (int i = 0; i < GPU_COUNT; i++)
        if ((void *)gpu >= (void *)all[i].instances && (void *)gpu < (void *)(all[i].instances + 8))
            return text(to, size, *(const char *const *)gpu);
    return text(to, size, gpu->uuid);
}

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
    total_free_used[2] = gpu->used;
    total_free_used[1] = gpu->memory - total_free_used[2];
    return 0;
}

static int number(const struct gpu *gpu, int value, int *to) {
    *to = value;
    return gpu->limited || value < 0 ? NOT_SUPPORTED : 0;
}
int nvmlDeviceGetUtilizationRates(const struct gpu *gpu, unsigned *gpu_and_memory) {
    gpu_and_memory[1] = gpu->utilization / 2;
    return number(gpu, gpu->utilization, (int *)gpu_and_memory);
}
int nvmlDeviceGetTemperature(const struct gpu *gpu, int sensor, int *to) {
    return sensor ? INVALID_ARGUMENT : number(gpu, gpu->temperature, to);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(const struct gpu *gpu, unsigned long long *reasons) {
    *reasons = gpu->slowdown;
    return gpu->limited ? NOT_SUPPORTED : 0;
}
int nvmlDeviceGetTotalEccErrors(const struct gpu *gpu, int type, int counter, unsigned long long *count) {
    int value, result = number(gpu, gpu->ecc[counter], &value);
    *count = type == 1 ? value : 7; /* 0 counts corrected ones, which are nothing to complain about */
    return result;
}
int nvmlDeviceGetRemappedRows(const struct gpu *gpu, int *correctable, int *uncorrectable, int *pending, int *failed) {
    *correctable = 0;
    *pending = gpu->remapped[1];
    *failed = gpu->remapped[2];
    return number(gpu, gpu->remapped[0], uncorrectable);
}
int nvmlDeviceGetRetiredPages(const struct gpu *gpu, int cause, unsigned *count, unsigned long long *pages) {
    unsigned here = cause == 1 ? gpu->retired[0] : 0, room = *count;
    if (gpu->limited || gpu->retired[0] < 0) return NOT_SUPPORTED;
    *count = here;
    if (room < here) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; pages && i < here; i++) pages[i] = 4096 * i;
    return 0;
}
int nvmlDeviceGetRetiredPagesPendingStatus(const struct gpu *gpu, int *pending) {
    return number(gpu, gpu->retired[1], pending);
}
int nvmlDeviceGetMigMode(const struct gpu *gpu, int *current, int *pending) {
    *pending = gpu->mig;
    return number(gpu, gpu->mig, current);
}
int nvmlDeviceGetMaxMigDeviceCount(const struct gpu *gpu, int *count) { return number(gpu, 7, count); }
int nvmlDeviceGetMigDeviceHandleByIndex(const struct gpu *gpu, unsigned index, const void **device) {
    *device = gpu->instances + index;
    return gpu->instances[index] ? 0 : NOT_FOUND;
}
int nvmlDeviceGetComputeMode(const struct gpu *gpu, int *mode) { return number(gpu, gpu->compute_mode, mode); }
int nvmlDeviceGetVirtualizationMode(const struct gpu *gpu, unsigned long long *mode) {
    *mode = gpu->virtualization;
    return gpu->limited ? NOT_SUPPORTED : 0;
}

struct process_info {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};
static int running(const struct gpu *gpu, int graphics, unsigned *count, struct process_info *to) {
    unsigned here = 0, room = *count;
    if (gpu->limited) return NOT_SUPPORTED;
    for (const struct process *p = gpu->processes; p < gpu->processes + 8 && p->pid; p++)
        if (p->graphics == graphics && ++here <= room)
            to[here - 1] = (struct process_info){p->pid, p->memory, ~0u, ~0u};
    *count = here;
    return here > room ? INSUFFICIENT_SIZE : 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(const struct gpu *gpu, unsigned *count, struct process_info *to) {
    return running(gpu, 0, count, to);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(const struct gpu *gpu, unsigned *count, struct process_info *to) {
    return running(gpu, 1, count, to);
}
