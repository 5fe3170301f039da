/* What the two simulated driver libraries have in common. "config.h" is written by drivers.py:
 *   DRIVER_VERSION   "550.54.14"
 *   CUDA_VERSION     12040
 *   INIT             what the first call does: an error number, HANG or CRASH
 *   GPUS             initialisers of struct gpu, comma-separated (may be empty) */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct process {
    unsigned pid;
    int graphics;
    unsigned long long memory;
};

struct gpu {
    const char *name, *uuid, *pci;
    int major, minor, multiprocessors;
    unsigned long long memory, used;
    int error;   /* NVML's answer to every question: 15 GPU is lost, 999 unknown */
    int limited; /* "not supported" is the answer to what is optional */
    int utilization, temperature;
    unsigned long long slowdown;      /* nvmlClocksEventReason… */
    int ecc[2];                       /* uncorrected: volatile, aggregate; -1 "not supported" here and below */
    int remapped[3];                  /* uncorrectable, pending, failed */
    int retired[2];                   /* pages with double-bit errors, pending */
    int mig;                          /* 0 off, 1 on */
    const char *instances[8];         /* UUIDs of MIG devices */
    int compute_mode, virtualization; /* NVML_COMPUTEMODE_…, NVML_GPU_VIRTUALIZATION_MODE_… */
    int virtual_memory;               /* what libcuda answers to the attribute of that name */
    struct process processes[8];
};

#define HANG (-1)
#define CRASH (-2)
#include "config.h"

static const struct gpu all[] = {GPUS{0}}; /* one too many: C knows no empty array */
enum { GPU_COUNT = sizeof all / sizeof *all - 1 };

/* Says of itself that it is none: results that come from it are marked. */
int envdoctor_simulated_driver = 1;

/* `denied` is what the library answers to a user who may not open the device nodes that are there. */
static int init(int denied) {
    if (INIT == HANG)
        for (;;) pause();
    if (INIT == CRASH) *(volatile int *)8 = 0;
    return access("/dev/nvidiactl", R_OK | W_OK) && errno == EACCES ? denied : INIT;
}
