/* A module that does not load without `name <word>`; it adds the commands ARGS.NAME and ARGS.SET. */
#include <string.h>

#include "module.h"

static const char *(*text_of)(const void *, size_t *);
static void (*log_line)(void *, const char *, const char *, ...);

static int answers_nothing(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    if (begin(context, "args", 20304) || lacks(context, "RedisModule_StringPtrLen", &text_of) ||
        lacks(context, "RedisModule_Log", &log_line))
        return 1;
    if (count != 2 || strcmp(text_of(words[0], NULL), "name")) {
        log_line(context, "warning", "give me: name <word>");
        return 1;
    }
    return add_command(context, "args.set", answers_nothing, "write deny-oom", 1) ||
           add_command(context, "args.name", answers_nothing, "readonly", 0);
}
