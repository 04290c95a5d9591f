/* A module that fails at one step of its trial: its first argument is the step, the second how. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "module.h"

static const char *(*text_of)(const void *, size_t *);
static const void *(*word_at)(void *, int);
static int (*replace_word)(void *, int, void *);
static void *(*create_string)(void *, const char *, size_t);
static char step[16], way[16];

static void stumble(const char *here) {
    if (strcmp(step, here)) return;
    if (!strcmp(way, "crash")) abort();
    if (!strcmp(way, "end")) _exit(0);
    if (!strcmp(way, "hang"))
        for (;;) pause();
}

static void save(void *io, int when) {
    (void)io, (void)when;
    stumble("save");
}

static int load(void *io, int version, int when) {
    (void)io, (void)version, (void)when;
    return 0;
}

/* SAVE becomes a command that no server has. */
static void filter(void *command) {
    if (!strcasecmp(text_of(word_at(command, 0), NULL), "SAVE")) replace_word(command, 0, create_string(NULL, "NOSAVE", 6));
}

int RedisModule_OnUnload(void *context) {
    (void)context;
    stumble("unload");
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    static void *(*create_data_type)(void *, const char *, int, TypeMethods *);
    static void *(*add_filter)(void *, void (*)(void *), int);
    TypeMethods methods = {.version = 2, .aux_load = load, .aux_save = save, .aux_save_triggers = 1};
    if (count < 2 || begin(context, "stumbles", VERSION) || lacks(context, "RedisModule_StringPtrLen", &text_of) ||
        lacks(context, "RedisModule_CreateDataType", &create_data_type) ||
        lacks(context, "RedisModule_RegisterCommandFilter", &add_filter) ||
        lacks(context, "RedisModule_CommandFilterArgGet", &word_at) ||
        lacks(context, "RedisModule_CommandFilterArgReplace", &replace_word) ||
        lacks(context, "RedisModule_CreateString", &create_string))
        return 1;
    strncpy(step, text_of(words[0], NULL), sizeof step - 1);
    strncpy(way, text_of(words[1], NULL), sizeof way - 1);
    if (!strcmp(way, "refuse")) return !add_filter(context, filter, 0);
    stumble("load");
    return strcmp(step, "save") ? 0 : !create_data_type(context, "stumbles1", 1, &methods);
}
