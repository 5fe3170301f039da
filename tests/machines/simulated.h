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

struct gpu {
    const char *name, *uuid, *pci;
    int major, minor, multiprocessors;
    unsigned long long memory;
    int error;   /* NVML's answer to every question: 15 GPU is lost, 999 unknown */
    int limited; /* "not supported" is the answer to what is optional */
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
