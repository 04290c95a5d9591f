/* A module that wants a newer server, and says so. */
#include "module.h"

static void (*log_line)(void *, const char *, const char *, ...);

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    if (begin(context, "floor", VERSION) || lacks(context, "RedisModule_Log", &log_line)) return 1;
    log_line(context, "notice", "starting up for user 'alice' at 10.0.0.7:6379");
    log_line(context, "warning", "Floor requires redis-server 99.0");
    return 1;
}
