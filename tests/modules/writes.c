/* WRITES.SET key value: a write command that is replicated word for word, so that it stays in the AOF. */
#include <stddef.h>

typedef int (*GetApi)(const char *name, void *function);
typedef int (*Command)(void *, void **, int);

static void (*set_module_attributes)(void *, const char *, int, int);
static int (*create_command)(void *, const char *, Command, const char *, int, int, int);
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

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_CreateCommand", &create_command) ||
        get_api("RedisModule_ReplyWithSimpleString", &reply_with_simple_string) ||
        get_api("RedisModule_OpenKey", &open_key) || get_api("RedisModule_StringSet", &string_set) ||
        get_api("RedisModule_CloseKey", &close_key) ||
        get_api("RedisModule_ReplicateVerbatim", &replicate_verbatim))
        return 1;
    set_module_attributes(context, "writes", VERSION, 1);
    return create_command(context, "writes.set", set, "write fast", 1, 1, 1);
}
