/*
** A disk that is full while the file named by FULL_FLAG exists: it holds a text, and every write to a file whose path
** contains that text fails with ENOSPC. Preloaded with LD_PRELOAD.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int full(int fd) {
  char link[64], path[4100], text[256];
  const char *flag = getenv("FULL_FLAG");
  int f, saved = errno;
  ssize_t n, m;
  if (flag == NULL) return 0;
  f = open(flag, O_RDONLY | O_CLOEXEC);
  if (f < 0) { errno = saved; return 0; }
  m = syscall(SYS_read, f, text, sizeof text - 1);
  close(f);
  errno = saved;
  if (m <= 0) return 0;
  text[m] = 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink(link, path, sizeof path - 1);
  if (n <= 0 || path[0] != '/') return 0;
  path[n] = 0;
  if (strstr(path, text) == NULL) return 0;
  errno = ENOSPC;
  return 1;
}

#define REAL(name) static __typeof__(&name) real; if (real == NULL) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t n) { REAL(write); return full(fd) ? -1 : real(fd, data, n); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); return full(fd) ? -1 : real(fd, v, n); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { REAL(pwrite); return full(fd) ? -1 : real(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { REAL(pwrite64); return full(fd) ? -1 : real(fd, data, n, at); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); return full(fd) ? -1 : real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); return full(fd) ? -1 : real(fd, n); }
int fallocate(int fd, int mode, off_t at, off_t n) { REAL(fallocate); return full(fd) ? -1 : real(fd, mode, at, n); }
int posix_fallocate(int fd, off_t at, off_t n) { REAL(posix_fallocate); return full(fd) ? ENOSPC : real(fd, at, n); }
