/* A module that does not load before `base` has: it calls BASE.ASK. */
#include "module.h"

static void *(*call)(void *, const char *, const char *, ...);
static void (*free_reply)(void *);

int RedisModule_OnLoad(void *context, void **words, int count) {
    void *reply;
    (void)words, (void)count;
    if (begin(context, "needs", VERSION) || lacks(context, "RedisModule_Call", &call) ||
        lacks(context, "RedisModule_FreeCallReply", &free_reply))
        return 1;
    if (!(reply = call(context, "base.ask", ""))) return 1;
    free_reply(reply);
    return 0;
}
