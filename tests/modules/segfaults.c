/* A module that logs a line and then touches memory that is not there: the server writes a crash report. */
#include "module.h"

static void (*log_line)(void *, const char *, const char *, ...);

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    if (begin(context, "segfaults", VERSION) || lacks(context, "RedisModule_Log", &log_line)) return 1;
    log_line(context, "warning", "about to crash");
    *(volatile int *)0 = 1;
    return 0;
}
