/* A module that keeps its arguments; ECHOES.ARGS answers them. */
#include "module.h"

static void *(*copy_of)(void *, void *);
static int (*reply_array)(void *, long);
static int (*reply_string)(void *, void *);
static void *kept[16];
static int kept_count;

static int args(void *context, void **words, int count) {
    (void)words, (void)count;
    reply_array(context, kept_count);
    for (int each = 0; each < kept_count; each++) reply_string(context, kept[each]);
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    if (begin(context, "echoes", VERSION) || lacks(context, "RedisModule_CreateStringFromString", &copy_of) ||
        lacks(context, "RedisModule_ReplyWithArray", &reply_array) ||
        lacks(context, "RedisModule_ReplyWithString", &reply_string) || count > 16)
        return 1;
    for (kept_count = 0; kept_count < count; kept_count++) kept[kept_count] = copy_of(0, words[kept_count]);
    return add_command(context, "echoes.args", args, "readonly", 0);
}
