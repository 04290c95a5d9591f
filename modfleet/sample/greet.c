/* The sample module: GREET.HELLO [name].
 *
 * It needs no header of a third party. The context that OnLoad gets begins with a pointer to GetApi, which answers the
 * server's functions by name: https://valkey.io/topics/modules-api-ref/
 */
#include <stddef.h>
#include <stdio.h>

#ifndef GREET_VERSION
#define GREET_VERSION 10000 /* major * 10000 + minor * 100 + patch */
#endif

enum { OK = 0, ERR = 1, API_VERSION = 1, LONGEST_REPLY = 512 };

typedef struct Context Context;
typedef struct String String;
typedef int (*Command)(Context *context, String **words, int count);
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(Context *, const char *, int, int);
static int (*create_command)(Context *, const char *, Command, const char *, int, int, int);
static int (*reply_with_string)(Context *, const char *, size_t);
static int (*wrong_arity)(Context *);
static const char *(*text_of)(const String *, size_t *);

static int hello(Context *context, String **words, int count) {
    char reply[LONGEST_REPLY];
    size_t length = 5;
    const char *name = "world";
    if (count > 2) return wrong_arity(context);
    if (count == 2) name = text_of(words[1], &length);
    if (length > 256) length = 256;
    int written = snprintf(reply, sizeof reply, "Hello, %.*s, from greet %d.%d.%d", (int)length, name,
                           GREET_VERSION / 10000, GREET_VERSION / 100 % 100, GREET_VERSION % 100);
    return reply_with_string(context, reply, (size_t)written);
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(Context *context, String **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) != OK ||
        get_api("RedisModule_CreateCommand", &create_command) != OK ||
        get_api("RedisModule_ReplyWithStringBuffer", &reply_with_string) != OK ||
        get_api("RedisModule_WrongArity", &wrong_arity) != OK ||
        get_api("RedisModule_StringPtrLen", &text_of) != OK)
        return ERR;
    set_module_attributes(context, "greet", GREET_VERSION, API_VERSION);
    return create_command(context, "greet.hello", hello, "readonly fast", 0, 0, 0);
}
