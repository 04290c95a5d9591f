/* WRITES.SET key value: a write command that is replicated word for word, so that it stays in the AOF.
   With MORE also WRITES.MORE, but not where the server's directory has a file `less`. */
#include <unistd.h>

#include "module.h"

static int (*reply_with_simple_string)(void *, const char *);
static void *(*open_key)(void *, void *, int);
static int (*string_set)(void *, void *);
static void (*close_key)(void *);
static int (*replicate_verbatim)(void *);

enum { WRITE = 2 };

static int set(void *context, void **words, int count) {
    if (count != 3) return reply_with_simple_string(context, "two words");
    void *key = open_key(context, words[1], WRITE);
    string_set(key, words[2]);
    close_key(key);
    replicate_verbatim(context);
    return reply_with_simple_string(context, "OK");
}

static int add_more(void *context) {
#ifdef MORE
    if (access("less", F_OK)) return add_command(context, "writes.more", set, "write fast", 1);
#endif
    (void)context;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "writes", VERSION) ||
           lacks(context, "RedisModule_ReplyWithSimpleString", &reply_with_simple_string) ||
           lacks(context, "RedisModule_OpenKey", &open_key) || lacks(context, "RedisModule_StringSet", &string_set) ||
           lacks(context, "RedisModule_CloseKey", &close_key) ||
           lacks(context, "RedisModule_ReplicateVerbatim", &replicate_verbatim) ||
           add_command(context, "writes.set", set, "write fast", 1) || add_more(context);
}
