/* A module with a timer that fires in a day: servers refuse to unload it until then. */
#include "module.h"

static unsigned long long (*create_timer)(void *, long long, void (*)(void *, void *), void *);

static void fires(void *context, void *nothing) { (void)context, (void)nothing; }

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    if (begin(context, "timer", VERSION) || lacks(context, "RedisModule_CreateTimer", &create_timer)) return 1;
    create_timer(context, 86400000, fires, 0);
    return 0;
}
