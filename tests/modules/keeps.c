/* KEEPS.SET key number, KEEPS.GET key: a module whose data type has keys.

   Versions from 2000 write another encoding, which older ones cannot read; version 999 ends the server then. Versions 500 and 501
   have no data type. SLEEP: how long the load of a key takes, in microseconds. */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "module.h"

static void *(*create_data_type)(void *, const char *, int, TypeMethods *);
static int (*reply_with_long_long)(void *, long long);
static void *(*open_key)(void *, void *, int);
static int (*set_value)(void *, void *, void *);
static void *(*get_value)(void *);
static void (*close_key)(void *);
static int (*replicate_verbatim)(void *);
static int (*number_of)(void *, long long *);
static void (*save_signed)(void *, int64_t);
static int64_t (*load_signed)(void *);
#ifdef NEEDS
static void *(*call)(void *, const char *, const char *, ...);
static void (*free_reply)(void *);
#endif

#ifndef SLEEP
#define SLEEP 0
#endif
#ifndef NAME
#define NAME "keeps"
#define TYPE "modkeeps1"
#endif

enum { READ = 1, WRITE = 2, ENCODING = VERSION < 2000 ? 1 : 2 };
static void *type;

static void *rdb_load(void *io, int version) {
    if (version > ENCODING && VERSION == 999) abort();
    if (version > ENCODING) return 0;
    long long *number = malloc(sizeof *number);
    *number = load_signed(io);
    if (version == 2) load_signed(io);
    if (SLEEP) usleep(SLEEP);
    return number;
}

static void rdb_save(void *io, void *value) {
    save_signed(io, *(long long *)value);
    if (ENCODING == 2) save_signed(io, 0);
}

static void aof_rewrite(void *io, void *key, void *value) { (void)io, (void)key, (void)value; }

static int set(void *context, void **words, int count) {
    long long *number = malloc(sizeof *number);
    if (count != 3 || number_of(words[2], number)) return reply_with_long_long(context, -1);
    void *key = open_key(context, words[1], READ | WRITE);
    set_value(key, type, number);
    close_key(key);
    replicate_verbatim(context);
    return reply_with_long_long(context, *number);
}

static int get(void *context, void **words, int count) {
    void *key = count == 2 ? open_key(context, words[1], READ) : 0;
    long long *number = key ? get_value(key) : 0;
    long long found = number ? *number : -1;
    if (key) close_key(key);
    return reply_with_long_long(context, found);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    TypeMethods methods = {
        .version = 1, .rdb_load = rdb_load, .rdb_save = rdb_save, .aof_rewrite = aof_rewrite, .free = free};
    (void)words, (void)count;
    if (begin(context, NAME, VERSION) || lacks(context, "RedisModule_CreateDataType", &create_data_type) ||
        lacks(context, "RedisModule_ReplyWithLongLong", &reply_with_long_long) ||
        lacks(context, "RedisModule_OpenKey", &open_key) ||
        lacks(context, "RedisModule_ModuleTypeSetValue", &set_value) ||
        lacks(context, "RedisModule_ModuleTypeGetValue", &get_value) ||
        lacks(context, "RedisModule_CloseKey", &close_key) ||
        lacks(context, "RedisModule_ReplicateVerbatim", &replicate_verbatim) ||
        lacks(context, "RedisModule_StringToLongLong", &number_of) ||
        lacks(context, "RedisModule_SaveSigned", &save_signed) || lacks(context, "RedisModule_LoadSigned", &load_signed))
        return 1;
#ifdef NEEDS
    void *reply;
    if (lacks(context, "RedisModule_Call", &call) || lacks(context, "RedisModule_FreeCallReply", &free_reply) ||
        !(reply = call(context, NEEDS, "c", "key")))
        return 1;
    free_reply(reply);
#endif
    if (VERSION / 2 != 250 && !(type = create_data_type(context, TYPE, ENCODING, &methods))) return 1;
    return add_command(context, NAME ".set", set, "write", 1) || add_command(context, NAME ".get", get, "readonly", 1);
}
