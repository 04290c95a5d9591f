/* A module that attacks the host when it is loaded, and then refuses to load. Its arguments are pairs: an attack, and a
 * word for it. It logs what has succeeded. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "module.h"

static const char *(*text_of)(const void *, size_t *);
static void (*log_line)(void *, const char *, const char *, ...);
static const char MESSAGE[] = "FLUSHALL\r\nSHUTDOWN NOSAVE\r\n";

static int read_file(const char *path) {
    static char text[1 << 20];
    int file = open(path, O_RDONLY);
    ssize_t size = file < 0 ? 0 : read(file, text, sizeof text);
    char *secret = size > 0 ? memmem(text, size, "open sesame", 11) : NULL;
    if (secret) log_line(NULL, "warning", "has read: %.11s", secret);
    return secret != NULL;
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

static struct sockaddr_un address_of(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    return address;
}

static int talk_to_socket(const char *path) {
    struct sockaddr_un address = address_of(path);
    return talk(AF_UNIX, (struct sockaddr *)&address, sizeof address);
}

/* A datagram needs no connection, and each kind of socket may have another way. */
static int send_to_socket(const char *path) {
    struct sockaddr_un address = address_of(path);
    for (int kind = SOCK_STREAM; kind <= SOCK_SEQPACKET; kind++) {
        int pair[2] = {-1, -1}, single = socket(AF_UNIX, kind, 0);
        socketpair(AF_UNIX, kind, 0, pair);
        for (int each = 0; each < 2; each++) {
            struct iovec data = {.iov_base = (char *)MESSAGE, .iov_len = 1};
            struct msghdr message = {
                .msg_name = &address, .msg_namelen = sizeof address, .msg_iov = &data, .msg_iovlen = 1};
            int sender = each ? single : pair[0];
            if (sender >= 0) {
                sendto(sender, MESSAGE, 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address);
                sendmsg(sender, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
            }
        }
    }
    return 0;
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

static int limit_process(const char *pid) {
    struct rlimit none = {0, 0};
    return !prlimit(atoi(pid), RLIMIT_NOFILE, &none, NULL);
}

/* A process gets a signal of our choice when there is something to read. */
static int signal_by_file(const char *pid) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || fcntl(ends[0], F_SETSIG, SIGKILL) ||
        fcntl(ends[0], F_SETOWN, atoi(pid)) || fcntl(ends[0], F_SETFL, O_ASYNC))
        return 0;
    return write(ends[1], "x", 1) == 1;
}

static int change_affinity(const char *pid) {
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    return !sched_setaffinity(atoi(pid), sizeof first, &first);
}

static int change_scheduling(const char *pid) {
    struct sched_param none = {0};
    return !sched_setparam(atoi(pid), &none) || !sched_setscheduler(atoi(pid), SCHED_IDLE, &none);
}

static int change_priority(const char *pid) { return !setpriority(PRIO_PROCESS, atoi(pid), 19); }

/* Capabilities in a namespace of its own. */
static int leave_namespace(const char *unused) {
    (void)unused;
    pid_t child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (!child) _exit(0);
    return child > 0 || !unshare(CLONE_NEWUSER);
}

static int use_shared_memory(const char *id) {
    char *found = shmat(atoi(id), NULL, 0);
    return found != (char *)-1 && !strcpy(found, "x");
}

static int take_message(const char *id) {
    struct { long type; char text[64]; } message;
    return msgrcv(atoi(id), &message, sizeof message.text, 0, IPC_NOWAIT) >= 0;
}

/* They would outlive the server. In namespaces, the kernel deletes them with it. */
static int leave_objects(const char *name) {
    int key = atoi(name + 1), made = msgget(key, IPC_CREAT | 0600) >= 0;
    made |= semget(key, 1, IPC_CREAT | 0600) >= 0;
    made |= shmget(key, 4096, IPC_CREAT | 0600) >= 0;
    return made | (mq_open(name, O_CREAT | O_RDWR, 0600, NULL) != (mqd_t)-1);
}

static int leave_key(const char *name) {
    return syscall(SYS_add_key, "user", name, "x", 1, KEY_SPEC_USER_KEYRING) >= 0 ||
           syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) >= 0;
}

static int change_mode(const char *path) { return !chmod(path, 0777) || !chown(path, getuid(), getgid()); }

/* All who open the file wait for the holder of a lease: fcntl(2). The mode 3 is for neither reading nor writing, so
 * Landlock allows it. */
static int take_lease(const char *path) {
    signal(SIGIO, SIG_IGN);
    int files[] = {open(path, O_RDONLY), open(path, 3)};
    for (int each = 0; each < 2; each++)
        if (!fcntl(files[each], F_SETLEASE, F_RDLCK) || !fcntl(files[each], F_SETLEASE, F_WRLCK)) return 1;
    return 0;
}

static int get_notified(const char *directory) { return !fcntl(open(directory, O_RDONLY), F_NOTIFY, DN_CREATE); }

/* Return 1 only if another opener of the file is kept from it. */
static int lock_file(const char *path) {
    struct flock lock = {.l_type = F_RDLCK}, found = {.l_type = F_WRLCK};
    int file = open(path, O_RDONLY), other = open(path, O_RDONLY);
    flock(file, LOCK_EX | LOCK_NB);
    fcntl(file, F_SETLK, &lock);
    fcntl(file, F_OFD_SETLK, &lock);
    return (flock(other, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) ||
           (!fcntl(other, F_OFD_GETLK, &found) && found.l_type != F_UNLCK);
}

/* As chattr(1) does: each later write would wait for the disk. */
static int change_attributes(const char *path) {
    int file = open(path, O_RDONLY), flags = 0;
    if (ioctl(file, FS_IOC_GETFLAGS, &flags)) return 0;
    flags |= FS_SYNC_FL;
    return !ioctl(file, FS_IOC_SETFLAGS, &flags);
}

static int change_times(const char *path) {
    return !utimensat(AT_FDCWD, path, NULL, 0) || !setxattr(path, "user.attack", "x", 1, 0);
}

static int truncate_file(const char *path) {
    return !truncate(path, 0) || open(path, O_RDONLY | O_TRUNC) >= 0 || open(path, 3 | O_TRUNC) >= 0;
}

/* They end by themselves, should a test fail. */
static int start_many(const char *unused) {
    (void)unused;
    for (time_t end = time(NULL) + 10; time(NULL) < end;) fork();
    _exit(0);
}

static int take_shared_memory(const char *unused) {
    (void)unused;
    prctl(PR_SET_DUMPABLE, 0);
    for (size_t size = 4 << 20;;) {
        char *taken = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (taken == MAP_FAILED) return 0;
        memset(taken, 1, size);
        usleep(1000);
    }
}

/* What a careless deletion follows or cannot read. */
static int leave_behind(const char *directory) {
    return !symlink(directory, "link") && !mkfifo("fifo", 0) && !mkdir("closed", 0700) && !mkdir("closed/inner", 0);
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

/* Also by a copy of id(1) with set-user-ID. */
static int become_root(const char *path) {
    char command[256], user[16] = "";
    snprintf(command, sizeof command, "%s -u", path);
    FILE *output = popen(command, "r");
    if (output) fgets(user, sizeof user, output);
    if (!user[0]) log_line(NULL, "warning", "it was not executed");
    return !strcmp(user, "0\n") || !setuid(0);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    static const struct {
        const char *name;
        int (*attack)(const char *);
    } attacks[] = {
        {"read", read_file},           {"write", write_file},          {"socket", talk_to_socket},
        {"port", talk_to_port},        {"listen", listen_on},          {"kill", kill_process},
        {"escape", escape},            {"fill", fill_disk},            {"memory", take_memory},
        {"spin", spin},                {"shout", shout},               {"code", make_writable_code},
        {"log", replace_log},          {"root", become_root},          {"limit", limit_process},
        {"file", signal_by_file},      {"mode", change_mode},          {"many", start_many},
        {"shared", take_shared_memory}, {"leave", leave_behind},       {"send", send_to_socket},
        {"affinity", change_affinity}, {"scheduling", change_scheduling}, {"priority", change_priority},
        {"namespace", leave_namespace}, {"segment", use_shared_memory}, {"message", take_message},
        {"objects", leave_objects},    {"key", leave_key},             {"lease", take_lease},
        {"notify", get_notified},      {"lock", lock_file},            {"attributes", change_attributes},
        {"times", change_times},       {"truncate", truncate_file},
    };
    if (begin(context, "attacks", VERSION) || lacks(context, "RedisModule_StringPtrLen", &text_of) ||
        lacks(context, "RedisModule_Log", &log_line))
        return 1;
    for (int place = 0; place < count; place += 2) {
        const char *name = text_of(words[place], NULL);
        const char *word = place + 1 < count ? text_of(words[place + 1], NULL) : "";
        for (size_t each = 0; each < sizeof attacks / sizeof *attacks; each++)
            if (!strcmp(attacks[each].name, name))
                log_line(context, "warning", "%s: %s", name, attacks[each].attack(word) ? "succeeded" : "failed");
    }
    return 1;
}
