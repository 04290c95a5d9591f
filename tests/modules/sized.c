/* A module with an option of its own: `sized.size`. */
#include "module.h"

static int (*register_numeric_config)(void *, const char *, long long, unsigned, long long, long long,
                                      long long (*)(const char *, void *),
                                      int (*)(const char *, long long, void *, void **), void *, void *);
static int (*load_configs)(void *);
static long long size;

static long long get(const char *name, void *nothing) {
    (void)name, (void)nothing;
    return size;
}

static int set(const char *name, long long value, void *nothing, void **error) {
    (void)name, (void)nothing, (void)error;
    size = value;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "sized", VERSION) ||
           lacks(context, "RedisModule_RegisterNumericConfig", &register_numeric_config) ||
           lacks(context, "RedisModule_LoadConfigs", &load_configs) ||
           register_numeric_config(context, "size", 7, 0, 0, 100, get, set, 0, 0) || load_configs(context);
}
