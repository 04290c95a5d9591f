/* A module with a data type: servers refuse to unload it. */
#include <stdint.h>

#include "module.h"

static void *(*create_data_type)(void *, const char *, int, TypeMethods *);

int RedisModule_OnLoad(void *context, void **words, int count) {
    TypeMethods methods = {.version = 1};
    (void)words, (void)count;
    return begin(context, "types", VERSION) || lacks(context, "RedisModule_CreateDataType", &create_data_type) ||
           !create_data_type(context, "modfleet1", 1, &methods);
}
