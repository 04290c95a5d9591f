/* What the test modules share. They are compiled without a header of a server. */
#include <stdint.h>

typedef int (*Command)(void *context, void **words, int count);

/* RedisModuleTypeMethods of redismodule.h. */
typedef struct {
    uint64_t version;
    void *(*rdb_load)(void *, int);
    void (*rdb_save)(void *, void *);
    void (*aof_rewrite)(void *, void *, void *);
    void *mem_usage, *digest;
    void (*free)(void *);
    int (*aux_load)(void *, int, int);
    void (*aux_save)(void *, int);
    int aux_save_triggers;
    void *more[32];
} TypeMethods;

/* Set `*function` to the server's function of this name. Returns 0, or 1 if the server has none. */
static inline int lacks(void *context, const char *name, void *function) {
    return (*(int (**)(const char *, void *))context)(name, function);
}

/* Give the module its name: the first step of OnLoad. Returns 0, or 1 for an error, as all functions here. */
static inline int begin(void *context, const char *name, int version) {
    void (*set_module_attributes)(void *, const char *, int, int);
    if (lacks(context, "RedisModule_SetModuleAttribs", &set_module_attributes)) return 1;
    set_module_attributes(context, name, version, 1);
    return 0;
}

/* `keys` is 1 if the first argument of the command is a key, else 0. */
static inline int add_command(void *context, const char *name, Command command, const char *flags, int keys) {
    int (*create_command)(void *, const char *, Command, const char *, int, int, int);
    return lacks(context, "RedisModule_CreateCommand", &create_command) ||
           create_command(context, name, command, flags, keys, keys, keys);
}
