/*
 * Errors of system calls in the shape of Node's own: `code` is the errno name, `errno` its negative number, `syscall` the call.
 * For the bindings, each of which is one source file.
 */
#pragma once
#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct {
  int number;
  const char *name;
} ERRNO_NAMES[] = {
#define NAME(code) {code, #code}
    NAME(E2BIG), NAME(EACCES), NAME(EAFNOSUPPORT), NAME(EAGAIN), NAME(EBADF), NAME(EBUSY),
    NAME(ECANCELED), NAME(EDEADLK), NAME(EDQUOT), NAME(EEXIST), NAME(EFAULT), NAME(EFBIG),
    NAME(EINTR), NAME(EINVAL), NAME(EIO), NAME(EISDIR), NAME(ELOOP), NAME(EMFILE), NAME(EMLINK),
    NAME(EMSGSIZE), NAME(ENAMETOOLONG), NAME(ENFILE), NAME(ENOBUFS), NAME(ENODATA), NAME(ENODEV),
    NAME(ENOENT), NAME(ENOLCK), NAME(ENOMEDIUM), NAME(ENOMEM), NAME(ENOSPC), NAME(ENOSYS),
    NAME(ENOTDIR), NAME(ENOTSUP), NAME(ENOTTY), NAME(ENXIO), NAME(EOVERFLOW), NAME(EPERM),
    NAME(EPIPE), NAME(EPROTONOSUPPORT), NAME(ERANGE), NAME(EREMOTEIO), NAME(EROFS),
    NAME(ESHUTDOWN), NAME(ESPIPE), NAME(ESTALE), NAME(ETIMEDOUT), NAME(ETXTBSY), NAME(EUCLEAN),
    NAME(EXDEV),
#undef NAME
};

static const char *errno_name(int number) {
  for (size_t i = 0; i < sizeof ERRNO_NAMES / sizeof ERRNO_NAMES[0]; i++)
    if (ERRNO_NAMES[i].number == number) return ERRNO_NAMES[i].name;
  return "UNKNOWN";
}

/* An Error in the shape of Node's own. NULL when even that failed; an exception is pending then. */
static napi_value make_error(napi_env env, int number, const char *syscall) {
  char text[256];
  napi_value code, message, error, value;
  snprintf(text, sizeof text, "%s: %s, %s", errno_name(number), strerror(number), syscall);
  if (napi_create_string_utf8(env, errno_name(number), NAPI_AUTO_LENGTH, &code) != napi_ok ||
      napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok ||
      napi_create_error(env, code, message, &error) != napi_ok ||
      napi_create_int32(env, -number, &value) != napi_ok ||
      napi_set_named_property(env, error, "errno", value) != napi_ok ||
      napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &value) != napi_ok ||
      napi_set_named_property(env, error, "syscall", value) != napi_ok)
    return NULL;
  return error;
}

static napi_value fail(napi_env env, int number, const char *syscall) {
  napi_value error = make_error(env, number, syscall);
  if (error != NULL) napi_throw(env, error);
  return NULL;
}

static bool wrong_type(napi_env env, const char *what) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", what);
  return false;
}

static bool wrong_range(napi_env env, const char *what) {
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", what);
  return false;
}
