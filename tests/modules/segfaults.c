/* A module that logs a line and then touches memory that is not there: the server writes a crash report. */
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);
static void (*log_line)(void *, const char *, const char *, ...);

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) || get_api("RedisModule_Log", &log_line))
        return 1;
    set_module_attributes(context, "segfaults", VERSION, 1);
    log_line(context, "warning", "about to crash");
    *(volatile int *)0 = 1;
    return 0;
}
