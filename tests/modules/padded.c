/* A module of any size: PADDED.ASK answers 1. */
#include "module.h"

static int (*reply_with_long_long)(void *, long long);

#ifndef PADDING
#define PADDING 1
#endif
__attribute__((used)) static const char padding[PADDING] = {1};

static int ask(void *context, void **words, int count) {
    (void)words, (void)count;
    return reply_with_long_long(context, padding[0]);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "padded", VERSION) ||
           lacks(context, "RedisModule_ReplyWithLongLong", &reply_with_long_long) ||
           add_command(context, "padded.ask", ask, "readonly fast", 0);
}
