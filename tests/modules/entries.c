/* The module that clients of a proof call. NAME.ASK answers [server, configuration]; NAME.ADD key entry and NAME.GET key answer
   [server, configuration, entries]. The server's name is that of its directory; the configuration is the version with the
   arguments. Writes are replicated word for word.

   TYPE: the nine letters of a data type; without it, keys are strings. ENCODING: 2 cannot be read by versions with 1. PADDING:
   a file whose bytes make this one larger. NEEDS: a command that OnLoad calls. Where the server's directory has a file `refuse-VERSION`, this
   version does not load; with a file `less-VERSION` it has no command NAME.MORE. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "module.h"

static int (*reply_with_array)(void *, long);
static int (*reply_with_error)(void *, const char *);
static int (*reply_with_buffer)(void *, const char *, size_t);
static void *(*open_key)(void *, void *, int);
static void (*close_key)(void *);
static const char *(*text_of)(void *, size_t *);
static int (*replicate_verbatim)(void *);

#ifndef ENCODING
#define ENCODING 1
#endif
#ifdef PADDING
__asm__(".section .rodata\n.incbin \"" PADDING "\"\n.text\n");
#endif

#define TEXT(number) #number
#define TEXT_OF(number) TEXT(number)
#define NUMBER TEXT_OF(VERSION)

enum { READ = 1, WRITE = 2 };
static char configuration[256], server[4096];

static int reply(void *context, const char *text) { return reply_with_buffer(context, text, strlen(text)); }

static int ask(void *context, void **words, int count) {
    (void)words, (void)count;
    reply_with_array(context, 2);
    reply(context, server);
    return reply(context, configuration);
}

#ifdef TYPE
static void *(*create_data_type)(void *, const char *, int, TypeMethods *);
static int (*set_value)(void *, void *, void *);
static void *(*get_value)(void *);
static void *(*type_of)(void *);
static int (*key_type)(void *);
static void (*save_buffer)(void *, const char *, size_t);
static char *(*load_buffer)(void *, size_t *);
static void (*server_free)(void *);
static void (*save_signed)(void *, int64_t);
static int64_t (*load_signed)(void *);
static void (*emit_aof)(void *, const char *, const char *, ...);
static void *type;

static void *rdb_load(void *io, int version) {
    size_t length;
    if (version > ENCODING) return 0;
    char *found = load_buffer(io, &length), *made = calloc(1, length + 1);
    memcpy(made, found, length);
    server_free(found);
    if (version == 2) load_signed(io);
    return made;
}

static void rdb_save(void *io, void *value) {
    save_buffer(io, value, strlen(value));
    if (ENCODING == 2) save_signed(io, 0);
}

static void aof_rewrite(void *io, void *key, void *value) { emit_aof(io, NAME ".put", "sc", key, value); }

/* The text at the key, NULL if there is none; a static text that begins with WRONGTYPE if it has another type. */
static const char *found_at(void *key) {
    if (!key || key_type(key) == 0) return 0;
    return type_of(key) == type ? get_value(key) : "WRONGTYPE";
}

static int put(void *context, void *key, char *text) {
    (void)context;
    set_value(key, type, text);
    return 0;
}
#else
static int (*string_set)(void *, void *);
static char *(*string_dma)(void *, size_t *, int);
static void *(*create_string)(void *, const char *, size_t);
static void (*free_string)(void *, void *);
static int (*key_type)(void *);

static const char *found_at(void *key) {
    static char text[4096];
    size_t length;
    if (!key || key_type(key) == 0) return 0;
    if (key_type(key) != 1) return "WRONGTYPE";
    const char *bytes = string_dma(key, &length, READ);
    if (length >= sizeof text) return "WRONGTYPE";
    memcpy(text, bytes, length);
    text[length] = 0;
    return text;
}

static int put(void *context, void *key, char *text) {
    void *string = create_string(context, text, strlen(text));
    string_set(key, string);
    free_string(context, string);
    free(text);
    return 0;
}
#endif

static int reply_with(void *context, const char *text) {
    reply_with_array(context, 3);
    reply(context, server);
    reply(context, configuration);
    return reply(context, text);
}

static int add(void *context, void **words, int count) {
    if (count != 3) return reply_with_error(context, "ERR two arguments");
    void *key = open_key(context, words[1], READ | WRITE);
    const char *former = found_at(key);
    if (former && *former == 'W') {
        close_key(key);
        return reply_with_error(context, "WRONGTYPE another module's key");
    }
    size_t length;
    const char *entry = text_of(words[2], &length);
    char *text = malloc((former ? strlen(former) : 0) + length + 2);
    sprintf(text, "%s%s%s", former ? former : "", former ? "," : "", entry);
    reply_with(context, text);
    put(context, key, text);
    close_key(key);
    replicate_verbatim(context);
    return 0;
}

static int get(void *context, void **words, int count) {
    if (count != 2) return reply_with_error(context, "ERR one argument");
    void *key = open_key(context, words[1], READ);
    const char *text = found_at(key);
    int done = text && *text == 'W' ? reply_with_error(context, "WRONGTYPE another module's key")
                                    : reply_with(context, text ? text : "");
    if (key) close_key(key);
    return done;
}

#ifdef TYPE
/* For the AOF only. */
static int put_command(void *context, void **words, int count) {
    size_t length;
    if (count != 3) return reply_with_error(context, "ERR two arguments");
    void *key = open_key(context, words[1], READ | WRITE);
    const char *text = text_of(words[2], &length);
    put(context, key, strdup(text));
    close_key(key);
    replicate_verbatim(context);
    return reply(context, "OK");
}
#endif

static void configure(void **words, int count) {
    int length = snprintf(configuration, sizeof configuration, "%d", VERSION);
    for (int i = 0; i < count; i++)
        length += snprintf(configuration + length, sizeof configuration - length, " %s", text_of(words[i], 0));
    char path[4096];
    const char *name = getcwd(path, sizeof path) ? strrchr(path, '/') : 0;
    snprintf(server, sizeof server, "%s", name ? name + 1 : "");
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    if (!access("refuse-" NUMBER, F_OK)) return 1;
    if (begin(context, NAME, VERSION) || lacks(context, "RedisModule_ReplyWithArray", &reply_with_array) ||
        lacks(context, "RedisModule_ReplyWithError", &reply_with_error) ||
        lacks(context, "RedisModule_ReplyWithStringBuffer", &reply_with_buffer) ||
        lacks(context, "RedisModule_OpenKey", &open_key) || lacks(context, "RedisModule_CloseKey", &close_key) ||
        lacks(context, "RedisModule_KeyType", &key_type) || lacks(context, "RedisModule_StringPtrLen", &text_of) ||
        lacks(context, "RedisModule_ReplicateVerbatim", &replicate_verbatim))
        return 1;
    configure(words, count);
#ifdef NEEDS
    void *(*call)(void *, const char *, const char *, ...);
    void (*free_reply)(void *), *answer;
    if (lacks(context, "RedisModule_Call", &call) || lacks(context, "RedisModule_FreeCallReply", &free_reply) ||
        !(answer = call(context, NEEDS, "")))
        return 1;
    free_reply(answer);
#endif
#ifdef TYPE
    TypeMethods methods = {
        .version = 1, .rdb_load = rdb_load, .rdb_save = rdb_save, .aof_rewrite = aof_rewrite, .free = free};
    if (lacks(context, "RedisModule_CreateDataType", &create_data_type) ||
        lacks(context, "RedisModule_ModuleTypeSetValue", &set_value) ||
        lacks(context, "RedisModule_ModuleTypeGetValue", &get_value) ||
        lacks(context, "RedisModule_ModuleTypeGetType", &type_of) ||
        lacks(context, "RedisModule_SaveStringBuffer", &save_buffer) ||
        lacks(context, "RedisModule_LoadStringBuffer", &load_buffer) ||
        lacks(context, "RedisModule_Free", &server_free) || lacks(context, "RedisModule_SaveSigned", &save_signed) ||
        lacks(context, "RedisModule_LoadSigned", &load_signed) || lacks(context, "RedisModule_EmitAOF", &emit_aof) ||
        !(type = create_data_type(context, TYPE, ENCODING, &methods)) ||
        add_command(context, NAME ".put", put_command, "write", 1))
        return 1;
#else
    if (lacks(context, "RedisModule_StringSet", &string_set) || lacks(context, "RedisModule_StringDMA", &string_dma) ||
        lacks(context, "RedisModule_CreateString", &create_string) ||
        lacks(context, "RedisModule_FreeString", &free_string))
        return 1;
#endif
    return (access("less-" NUMBER, F_OK) && add_command(context, NAME ".more", ask, "readonly fast", 0)) ||
           add_command(context, NAME ".ask", ask, "readonly fast", 0) ||
           add_command(context, NAME ".add", add, "write", 1) || add_command(context, NAME ".get", get, "readonly", 1);
}
