/* A module with one numeric option, `depth`, from 0 to LIMIT; version 3 has none. */
#include "module.h"

typedef long long (*Get)(const char *, void *);
typedef int (*Set)(const char *, long long, void *, void **);

static long long depth;

static long long get(const char *name, void *data) {
    (void)name, (void)data;
    return depth;
}

static int set(const char *name, long long value, void *data, void **error) {
    (void)name, (void)data, (void)error;
    depth = value;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    int (*add_number)(void *, const char *, long long, unsigned, long long, long long, Get, Set, void *, void *);
    int (*read_configuration)(void *);
    (void)words, (void)count;
    if (begin(context, "options", VERSION)) return 1;
    if (VERSION == 3) return 0;
    return lacks(context, "RedisModule_RegisterNumericConfig", &add_number) ||
           lacks(context, "RedisModule_LoadConfigs", &read_configuration) ||
           add_number(context, "depth", 5, 0, 0, VERSION == 4 ? 6 : 1000, get, set, 0, 0) || read_configuration(context);
}
