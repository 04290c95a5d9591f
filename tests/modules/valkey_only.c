/* A module that has only the name of OnLoad which Valkey added: Redis refuses it. */
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);

int ValkeyModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("ValkeyModule_SetModuleAttribs", &set_module_attributes)) return 1;
    set_module_attributes(context, "valkey_only", VERSION, 1);
    return 0;
}
