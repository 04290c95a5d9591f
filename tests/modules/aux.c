/* A module whose data type saves auxiliary data into each RDB, also into one without a key. Versions from 2000 save others, which
   older ones refuse. */
#include <stdint.h>

#include "module.h"

enum { BEFORE_RDB = 1, DATA = VERSION < 2000 ? 42 : 43 };

static void *(*create_data_type)(void *, const char *, int, TypeMethods *);
static void (*save_signed)(void *, int64_t);
static int64_t (*load_signed)(void *);

static int aux_load(void *io, int version, int when) {
    (void)version, (void)when;
    return load_signed(io) > DATA;
}

static void aux_save(void *io, int when) {
    (void)when;
    save_signed(io, DATA);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    TypeMethods methods = {
        .version = 2, .aux_load = aux_load, .aux_save = aux_save, .aux_save_triggers = BEFORE_RDB};
    (void)words, (void)count;
    return begin(context, "aux", VERSION) || lacks(context, "RedisModule_CreateDataType", &create_data_type) ||
           lacks(context, "RedisModule_SaveSigned", &save_signed) ||
           lacks(context, "RedisModule_LoadSigned", &load_signed) ||
           !create_data_type(context, "modauxil1", 1, &methods);
}
