/* A libcuda.so.1 with what an unmodified TensorFlow asks before it registers a GPU; it runs no kernel.
 * Signatures and numbers: cuda.h. It honours CUDA_VISIBLE_DEVICES as CUDA does. */
#include "simulated.h"

enum { INVALID_VALUE = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101 };

static const struct gpu *usable[GPU_COUNT + 1], *visible[GPU_COUNT + 1]; /* without and with the mask */
static int usable_count, count = -1;                                      /* -1: before cuInit */

static const char *const errors[][3] = {
    {"0", "CUDA_SUCCESS", "no error"},
    {"1", "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {"2", "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {"3", "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {"34", "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {"100", "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {"101", "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {"802", "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"},
    {"803", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {"804", "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "forward compatibility was attempted on non supported HW"},
    {"999", "CUDA_ERROR_UNKNOWN", "unknown error"},
};
static int lookup(int code, int column, const char **text) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (atoi(errors[i][0]) == code) {
            *text = errors[i][column];
            return 0;
        }
    *text = NULL;
    return INVALID_VALUE;
}
int cuGetErrorName(int code, const char **name) { return lookup(code, 1, name); }
int cuGetErrorString(int code, const char **text) { return lookup(code, 2, text); }

/* CUDA_VISIBLE_DEVICES: indices as strtol reads them, beginnings of UUIDs that fit one device only, or MIG
 * devices; the first entry decides which of the three. What follows a bad one is not seen either, and who is
 * named twice hides all. Source: CUDA programming guide; experiments behind pytorch/pytorch#84879 and #92315. */
static const struct gpu *find(const char *word) {
    const struct gpu *found = NULL;
    int mig = !strncmp(word, "MIG-", 4);
    if (!mig && strncmp(word, "GPU-", 4)) {
        char *end;
        long index = strtol(word, &end, 10);
        return end != word && index >= 0 && index < usable_count ? usable[index] : NULL;
    }
    for (int i = 0; i < usable_count; i++)
        for (const char *const *name = mig ? usable[i]->instances : &usable[i]->uuid; *name; name++) {
            if (strncmp(*name, word, strlen(word))) {
                if (!mig) break;
                continue;
            }
            if (found) return NULL;
            found = usable[i];
            if (!mig) break;
        }
    return found;
}
static int kind(const char *word) { return !strncmp(word, "GPU-", 4) + 2 * !strncmp(word, "MIG-", 4); }
static void list_visible(void) {
    usable_count = count = 0;
    for (int i = 0; i < GPU_COUNT; i++)
        if (!all[i].error && (all[i].mig != 1 || all[i].instances[0])) usable[usable_count++] = &all[i];
    const char *mask = getenv("CUDA_VISIBLE_DEVICES");
    if (!mask) {
        memcpy(visible, usable, sizeof visible);
        count = usable_count;
        return;
    }
    char *copy = strdup(mask), *rest = copy, *word;
    const struct gpu *gpu;
    int first = kind(copy);
    while ((word = strsep(&rest, ",")) && kind(word) == first && (gpu = find(word))) {
        for (int i = 0; i < count; i++)
            if (visible[i] == gpu) {
                count = 0;
                goto end;
            }
        visible[count++] = gpu;
    }
end:
    free(copy);
}

int cuInit(unsigned flags) {
    int result = init(NO_DEVICE);
    if (result) return result;
    list_visible();
    return count ? 0 : NO_DEVICE;
}
int cuDriverGetVersion(int *version) { *version = CUDA_VERSION; return 0; }
int cuDeviceGetCount(int *number) { *number = count; return count < 0 ? NOT_INITIALIZED : 0; }
int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < count ? 0 : INVALID_DEVICE;
}
int cuDeviceGetName(char *to, int size, int device) { snprintf(to, size, "%s", visible[device]->name); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = visible[device]->memory; return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device) {
    *major = visible[device]->major;
    *minor = visible[device]->minor;
    return 0;
}
int cuDeviceGetPCIBusId(char *to, int size, int device) { snprintf(to, size, "%s", visible[device]->pci); return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) {
    const char *from = visible[device]->uuid + strlen("GPU-");
    for (int i = 0; i < 16; i++, from += 2) {
        from += *from == '-';
        sscanf(from, "%2hhx", uuid + i);
    }
    return 0;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }

/* CU_DEVICE_ATTRIBUTE_*, as an Ada or Hopper GPU answers; 0 for every feature not named. */
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const struct gpu *gpu = visible[device];
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;                /* MAX_THREADS_PER_BLOCK, MAX_BLOCK_DIM_X, _Y */
    case 4: *value = 64; break;                                  /* MAX_BLOCK_DIM_Z */
    case 5: *value = 2147483647; break;                          /* MAX_GRID_DIM_X */
    case 6: case 7: *value = 65535; break;                       /* MAX_GRID_DIM_Y, _Z */
    case 8: *value = 49152; break;                               /* MAX_SHARED_MEMORY_PER_BLOCK */
    case 10: *value = 32; break;                                 /* WARP_SIZE */
    case 12: case 82: *value = 65536; break;                     /* registers per block, per multiprocessor */
    case 13: case 36: *value = 2520000; break;                   /* CLOCK_RATE, MEMORY_CLOCK_RATE, kHz */
    case 16: *value = gpu->multiprocessors; break;
    case 37: *value = 384; break;                                /* GLOBAL_MEMORY_BUS_WIDTH */
    case 38: *value = 75497472; break;                           /* L2_CACHE_SIZE */
    case 39: *value = 1536; break;                               /* MAX_THREADS_PER_MULTIPROCESSOR */
    case 75: *value = gpu->major; break;
    case 76: *value = gpu->minor; break;
    case 81: *value = 102400; break;                             /* shared memory per multiprocessor */
    case 97: *value = 101376; break;                             /* MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
    case 102: *value = gpu->virtual_memory; break;               /* VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED */
    default: *value = 0;
    }
    return 0;
}
