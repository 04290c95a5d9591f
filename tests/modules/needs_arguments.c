/* A module that does not load without `name <word>`; it adds the commands ARGS.NAME and ARGS.SET. */
#include <string.h>

typedef int (*Command)(void *context, void **words, int count);
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);
static int (*create_command)(void *, const char *, Command, const char *, int, int, int);
static const char *(*text_of)(const void *, size_t *);
static void (*log_line)(void *, const char *, const char *, ...);

static int answers_nothing(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_CreateCommand", &create_command) || get_api("RedisModule_StringPtrLen", &text_of) ||
        get_api("RedisModule_Log", &log_line))
        return 1;
    set_module_attributes(context, "args", 20304, 1);
    if (count != 2 || strcmp(text_of(words[0], NULL), "name")) {
        log_line(context, "warning", "give me: name <word>");
        return 1;
    }
    return create_command(context, "args.set", answers_nothing, "write deny-oom", 1, 1, 1) ||
           create_command(context, "args.name", answers_nothing, "readonly", 0, 0, 0);
}
