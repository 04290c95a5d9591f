/* A module that attacks the host when it is loaded, as its first argument says, and then refuses to load. It logs what
 * has succeeded. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "module.h"

static const char *(*text_of)(const void *, size_t *);
static void (*log_line)(void *, const char *, const char *, ...);
static const char MESSAGE[] = "FLUSHALL\r\nSHUTDOWN NOSAVE\r\n";

static int read_file(const char *path) {
    char text[64] = "";
    int file = open(path, O_RDONLY);
    if (file < 0 || read(file, text, sizeof text - 1) <= 0) return 0;
    log_line(NULL, "warning", "has read: %s", text);
    return 1;
}

static int write_file(const char *path) {
    int file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    return file >= 0 && write(file, "x", 1) == 1;
}

static int talk(int family, const struct sockaddr *address, socklen_t length) {
    char answer[8];
    int client = socket(family, SOCK_STREAM, 0);
    return !connect(client, address, length) && write(client, MESSAGE, sizeof MESSAGE - 1) > 0 &&
           read(client, answer, sizeof answer) > 0;
}

static int talk_to_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    return talk(AF_UNIX, (struct sockaddr *)&address, sizeof address);
}

static struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int talk_to_port(const char *port) {
    struct sockaddr_in address = loopback(port);
    return talk(AF_INET, (struct sockaddr *)&address, sizeof address);
}

static int listen_on(const char *port) {
    struct sockaddr_in address = loopback(port);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    return !bind(server, (struct sockaddr *)&address, sizeof address) && !listen(server, 1);
}

/* Kill one process and its own parent; never all, because a test may run it without namespaces. */
static int kill_process(const char *pid) {
    if (getppid() <= 1) kill(getppid(), SIGKILL);
    return !kill(atoi(pid), SIGKILL);
}

static int escape(const char *unused) {
    (void)unused;
    if (fork()) return 1;
    setsid();
    if (fork()) _exit(0);
    signal(SIGTERM, SIG_IGN);
    sleep(1000);
    _exit(0);
}

static int fill_disk(const char *unused) {
    (void)unused;
    static char block[1 << 20];
    for (int number = 0;; number++) {
        char name[32];
        snprintf(name, sizeof name, "file%d", number);
        int file = open(name, O_CREAT | O_WRONLY, 0600);
        for (int written = 0; written < 50; written++)
            if (write(file, block, sizeof block) < 0) return 1;
        close(file);
    }
}

static int take_memory(const char *unused) {
    (void)unused;
    for (;;) {
        char *taken = malloc(10000000);
        if (!taken) abort();
        memset(taken, 1, 10000000);
    }
}

static int spin(const char *unused) {
    (void)unused;
    signal(SIGTERM, SIG_IGN);
    for (;;) {
    }
}

static int shout(const char *words) {
    for (int line = 0; line < 50000; line++)
        log_line(NULL, "warning", "%0100d", line);
    log_line(NULL, "warning", "\033[2J\033]0;title\007 %s password=hunter2", words);
    abort();
}

static int make_writable_code(const char *unused) {
    (void)unused;
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static int replace_log(const char *path) {
    unlink("../log1");
    return !symlink(path, "../log1") || !symlink(path, "../conf2");
}

static int become_root(const char *unused) {
    (void)unused;
    return !setuid(0) && !access("/etc/shadow", R_OK);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    static const struct {
        const char *name;
        int (*attack)(const char *);
    } attacks[] = {
        {"read", read_file},       {"write", write_file},          {"socket", talk_to_socket},
        {"port", talk_to_port},    {"listen", listen_on},          {"kill", kill_process},
        {"escape", escape},        {"fill", fill_disk},            {"memory", take_memory},
        {"spin", spin},            {"shout", shout},               {"code", make_writable_code},
        {"log", replace_log},      {"root", become_root},
    };
    if (begin(context, "attacks", VERSION) || lacks(context, "RedisModule_StringPtrLen", &text_of) ||
        lacks(context, "RedisModule_Log", &log_line))
        return 1;
    const char *name = text_of(words[0], NULL), *word = count > 1 ? text_of(words[1], NULL) : "";
    for (size_t each = 0; each < sizeof attacks / sizeof *attacks; each++)
        if (!strcmp(attacks[each].name, name))
            log_line(context, "warning", "%s: %s", name, attacks[each].attack(word) ? "succeeded" : "failed");
    return 1;
}
