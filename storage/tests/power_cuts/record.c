/* Loaded into a process (LD_PRELOAD): appends what it does to the files below RECORD_BELOW to the file
 * RECORD_TO, in the order in which the calls returned.
 *
 *   record   op(1) path_len(4) offset(8) data_len(4) path data      numbers little endian
 *   op       w data at offset, v the same, and it is on the device, s by fsync and d by fdatasync all
 *            is, t length is offset, c made or emptied, u removed, r renamed to data, m a directory was
 *            made
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static const char *below;
static int out = -1;

__attribute__((constructor)) static void begin(void) {
    const char *to = getenv("RECORD_TO");
    below = getenv("RECORD_BELOW");
    if (to && below)
        out = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_below(const char *path) {
    return out >= 0 && strncmp(path, below, strlen(below)) == 0;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0)
        return 0;
    path[len] = 0;
    return is_below(path);
}

static void all(const void *data, size_t len) {
    while (len > 0) {
        ssize_t done = syscall(SYS_write, out, data, len);
        if (done <= 0)
            abort();
        data = (const char *)data + done;
        len -= (size_t)done;
    }
}

static void record(char op, const char *path, uint64_t offset, const void *data, uint32_t len) {
    uint32_t path_len = (uint32_t)strlen(path);
    all(&op, 1);
    all(&path_len, 4);
    all(&offset, 8);
    all(&len, 4);
    all(path, path_len);
    all(data, len);
}

/* Makes a call and records it if it succeeded, as one. */
#define RECORDED(known, call, what)                                                                  \
    do {                                                                                             \
        int kept = 0;                                                                                \
        pthread_mutex_lock(&turn);                                                                   \
        long result = (call);                                                                        \
        kept = errno;                                                                                \
        if (result >= 0 && (known)) {                                                                \
            what;                                                                                    \
        }                                                                                            \
        pthread_mutex_unlock(&turn);                                                                 \
        errno = kept;                                                                                \
        return result;                                                                               \
    } while (0)

/* Whether what is written to a file is on the device when the call returns. */
static int is_written_through(int fd) {
    int flags = 0;
    return ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && flags & FS_SYNC_FL;
}

static void wrote(int fd, const char *path, uint64_t offset, const void *data, long len) {
    record(is_written_through(fd) ? 'v' : 'w', path, offset, data, (uint32_t)len);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    char path[PATH_MAX];
    int known = path_of(fd, path);
    RECORDED(known, syscall(SYS_pwrite64, fd, data, len, offset),
             wrote(fd, path, (uint64_t)offset, data, result));
}

ssize_t write(int fd, const void *data, size_t len) {
    char path[PATH_MAX];
    int known = path_of(fd, path);
    RECORDED(known, syscall(SYS_write, fd, data, len),
             wrote(fd, path, (uint64_t)(lseek(fd, 0, SEEK_CUR) - result), data, result));
}

/* What nobody does yet is not recorded. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    if (path_of(fd, path))
        abort();
    return syscall(SYS_writev, fd, parts, count);
}

int fsync(int fd) {
    char path[PATH_MAX];
    int known = path_of(fd, path);
    RECORDED(known, syscall(SYS_fsync, fd), record('s', path, 0, "", 0));
}

int fdatasync(int fd) {
    char path[PATH_MAX];
    int known = path_of(fd, path);
    RECORDED(known, syscall(SYS_fdatasync, fd), record('d', path, 0, "", 0));
}

int ftruncate64(int fd, off64_t len) {
    char path[PATH_MAX];
    int known = path_of(fd, path);
    RECORDED(known, syscall(SYS_ftruncate, fd, len), record('t', path, (uint64_t)len, "", 0));
}

static int opened(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat before;
    int made = (flags & O_TRUNC) || ((flags & O_CREAT) && fstatat(at, name, &before, 0) != 0);
    RECORDED(made && path_of((int)result, path), syscall(SYS_openat, at, name, flags, mode),
             record('c', path, 0, "", 0));
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

int open64(const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return opened(AT_FDCWD, name, flags, mode);
}

int open(const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return opened(AT_FDCWD, name, flags, mode);
}

int openat64(int at, const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return opened(at, name, flags, mode);
}

int rename(const char *from, const char *to) {
    RECORDED(is_below(from), syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to),
             record('r', from, 0, to, (uint32_t)strlen(to)));
}

int unlink(const char *path) {
    RECORDED(is_below(path), syscall(SYS_unlinkat, AT_FDCWD, path, 0), record('u', path, 0, "", 0));
}

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int known = path_of(at, path);
    if (known && strlen(path) + 1 + strlen(name) < sizeof path) {
        strcat(path, "/");
        strcat(path, name);
    }
    RECORDED(known, syscall(SYS_unlinkat, at, name, flags), record('u', path, 0, "", 0));
}

int rmdir(const char *path) {
    RECORDED(is_below(path), syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR),
             record('u', path, 0, "", 0));
}

int mkdir(const char *path, mode_t mode) {
    RECORDED(is_below(path), syscall(SYS_mkdirat, AT_FDCWD, path, mode), record('m', path, 0, "", 0));
}
