/* BLOCKS.WAIT: a command whose clients wait for a day; the server refuses to unload the module until then. */
#include "module.h"

static void *(*block_client)(void *, Command, Command, void (*)(void *, void *), long long);
static int (*reply_with_null)(void *);

static int answers(void *context, void **words, int count) {
    (void)words, (void)count;
    return reply_with_null(context);
}

static int waits(void *context, void **words, int count) {
    (void)words, (void)count;
    block_client(context, answers, answers, 0, 86400000);
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "blocks", VERSION) || lacks(context, "RedisModule_BlockClient", &block_client) ||
           lacks(context, "RedisModule_ReplyWithNull", &reply_with_null) ||
           add_command(context, "blocks.wait", waits, "readonly", 0);
}
