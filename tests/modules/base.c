/* BASE.ASK answers this module's version; `needs` calls it. */
#include "module.h"

static int (*reply_with_long_long)(void *, long long);

static int ask(void *context, void **words, int count) {
    (void)words, (void)count;
    return reply_with_long_long(context, VERSION);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "base", VERSION) ||
           lacks(context, "RedisModule_ReplyWithLongLong", &reply_with_long_long) ||
           add_command(context, "base.ask", ask, "readonly fast", 0);
}
