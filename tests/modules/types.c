/* A module with a data type: servers refuse to unload it. */
#include <stdint.h>

typedef int (*GetApi)(const char *name, void *function);

typedef struct {
    uint64_t version;
    void *methods[32]; /* none is called: no key of this type is ever made */
} TypeMethods;

static void (*set_module_attributes)(void *, const char *, int, int);
static void *(*create_data_type)(void *, const char *, int, TypeMethods *);

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    TypeMethods methods = {.version = 1};
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_CreateDataType", &create_data_type))
        return 1;
    set_module_attributes(context, "types", VERSION, 1);
    return create_data_type(context, "modfleet1", 1, &methods) ? 0 : 1;
}
