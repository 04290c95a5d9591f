/* FAILS.CALL: every nth call fails, where n is the module's first argument; none fails without an argument.
   FAILS.HANG: blocks the server until it is killed. FAILS.ABORT: aborts it after so many milliseconds. */
#include "module.h"

static int (*reply_with_error)(void *, const char *);
static int (*reply_with_long_long)(void *, long long);
static int (*string_to_long_long)(const void *, long long *);
static unsigned long long (*create_timer)(void *, long long, void (*)(void *, void *), void *);
static long long every, calls;

extern void abort(void);
extern unsigned int sleep(unsigned int seconds);

static int call(void *context, void **words, int count) {
    (void)words, (void)count;
    calls++;
    if (every && calls % every == 0) return reply_with_error(context, "ERR it fails");
    return reply_with_long_long(context, calls);
}

static int hang(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    for (;;) sleep(1);
    return 0;
}

static void aborts(void *context, void *nothing) {
    (void)context, (void)nothing;
    abort();
}

static int abort_later(void *context, void **words, int count) {
    long long milliseconds = 0;
    if (count != 2 || string_to_long_long(words[1], &milliseconds)) return reply_with_error(context, "ERR a number");
    create_timer(context, milliseconds, aborts, 0);
    return reply_with_long_long(context, milliseconds);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    if (begin(context, "fails", VERSION) || lacks(context, "RedisModule_ReplyWithError", &reply_with_error) ||
        lacks(context, "RedisModule_ReplyWithLongLong", &reply_with_long_long) ||
        lacks(context, "RedisModule_CreateTimer", &create_timer) ||
        lacks(context, "RedisModule_StringToLongLong", &string_to_long_long))
        return 1;
    if (count == 1 && string_to_long_long(words[0], &every)) return 1;
    return add_command(context, "fails.call", call, "readonly fast", 0) ||
           add_command(context, "fails.hang", hang, "readonly", 0) ||
           add_command(context, "fails.abort", abort_later, "readonly", 0);
}
