/* A module whose OnLoad does not end. */
#include <unistd.h>

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    for (;;) pause();
}
