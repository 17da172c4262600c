/*
** A machine whose folders lack what many do. Preloaded with LD_PRELOAD; LACKS holds words:
**   sync      folders cannot be synced (EINVAL, as on network folders)
**   syncdir   folders cannot even be opened to be synced (EACCES)
**   names     no rename that replaces nothing, and no hard links (EINVAL, EPERM, as on FAT): a filter of system calls
**   umask077  the process's umask
**   power     what is written aside gets as far as half of it, then the process is killed
** While the file named by LACKS_FLAG exists, it holds a number: opening an entry fails with that error.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int lacks(const char *what) {
  const char *all = getenv("LACKS");
  return all != NULL && strstr(all, what) != NULL;
}

__attribute__((constructor)) static void begin(void) {
  struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
#ifdef SYS_link
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_link, 1, 0),
#endif
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_linkat, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = { sizeof filter / sizeof filter[0], filter };
  if (lacks("umask077")) umask(077);
  if (!lacks("names")) return;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) abort();
}

#define REAL(name) static __typeof__(&name) real; if (real == NULL) real = dlsym(RTLD_NEXT, #name)

int fsync(int fd) {
  struct stat s;
  REAL(fsync);
  if (lacks("sync") && fstat(fd, &s) == 0 && S_ISDIR(s.st_mode)) { errno = EINVAL; return -1; }
  return real(fd);
}

int fdatasync(int fd) {
  char at[64], name[4096];
  ssize_t length;
  struct stat s;
  REAL(fdatasync);
  snprintf(at, sizeof at, "/proc/self/fd/%d", fd);
  length = readlink(at, name, sizeof name);
  if (lacks("power") && length > 5 && memcmp(name + length - 5, ".part", 5) == 0 && fstat(fd, &s) == 0) {
    if (ftruncate(fd, s.st_size / 2)) abort();
    kill(getpid(), SIGKILL);
  }
  return real(fd);
}

static int refused(const char *path, int flags) {
  const char *flag = getenv("LACKS_FLAG"), *end = strrchr(path, '.');
  struct stat s;
  char number[16] = "";
  int f;
  if (lacks("syncdir") && !(flags & (O_DIRECTORY | O_WRONLY | O_RDWR)) && stat(path, &s) == 0 && S_ISDIR(s.st_mode)) {
    errno = EACCES;
    return 1;
  }
  /* What is written aside ends with .part. */
  if (flag == NULL || end == NULL || (strcmp(end, ".entry") != 0 && strcmp(end, ".part") != 0)) return 0;
  f = syscall(SYS_openat, AT_FDCWD, flag, O_RDONLY | O_CLOEXEC);
  if (f < 0) return 0;
  syscall(SYS_read, f, number, sizeof number - 1);
  close(f);
  errno = atoi(number);
  return errno != 0;
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list list; int mode; \
    REAL(name); \
    va_start(list, flags); mode = va_arg(list, int); va_end(list); \
    return refused(path, flags) ? -1 : real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
