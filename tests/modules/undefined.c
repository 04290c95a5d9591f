/* A module that calls a function which no library has. */
int modfleet_nowhere(void);

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return modfleet_nowhere();
}
