/* A module that takes its server down while it is loaded. */
#include <signal.h>

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return raise(SIGKILL);
}
