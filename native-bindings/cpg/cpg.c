/*
 * Corosync for Node: closed process groups (libcpg), quorum (libquorum), node addresses (libcfg).
 *
 * N-API version 8 only, no libuv. Everything of corosync's that may wait for its daemon (connect, join,
 * finalise) runs on a thread of the port; that thread also watches the descriptor. Reading events
 * (dispatch) and sending never wait and run on the thread of JavaScript, one port at a time:
 *
 *   thread                                   main
 *   connect, join          -- opened -->     callback('open', nodeId) or callback('closed', status)
 *   poll(fd)               -- readable -->   dispatch into a list, callback('events', list)
 *   waits for the go       <-- go ---
 *
 * libcpg keeps a megabyte on the stack while it calls back, so JavaScript is never called from there:
 * V8 would take the stack for exhausted. Events are copied to a list first.
 *
 * Statuses are corosync's (corotypes.h): 1 ok, 2 the daemon is gone or was never there, 6 try again.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <arpa/inet.h>
#include <corosync/cfg.h>
#include <corosync/corotypes.h>
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <errno.h>
#include <node_api.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

/* One turn reads at most this many events, so that a flood leaves room for other work. */
#define EVENTS_PER_TURN 256
#define PARTS_MAX 4
#define ADDRESSES_MAX 8
/* libcpg itself needs little; the deepest thing the thread calls is a connect. */
#define THREAD_STACK_BYTES (2 * 1024 * 1024)
/*
 * Corosync answers "try again" while a membership change is under way, and "exists" as long as an earlier port of
 * this process has not left the group altogether.
 */
#define CONNECT_RETRY_MS 50
#define CONNECT_RETRIES 200

typedef struct event {
  struct event *next;
  bool is_message;
  uint32_t node_id, pid;
  /* Of a message: its bytes. Of a change: triples of node id, pid and reason, one list after the other. */
  size_t length;
  size_t members, left, joined;
  uint8_t bytes[];
} event_t;

typedef enum { GROUP, QUORUM } kind_t;

typedef struct {
  kind_t kind;
  struct cpg_name group;
  uint64_t handle;
  bool connected;
  uint32_t node_id;
  int fd, stop_fd, go_fd;
  napi_threadsafe_function function;
  /* Of the value in JavaScript, of the function, and of the thread: at exit any of them may be the last. */
  atomic_int references;
  /* What follows belongs to the main thread. */
  bool opened, over;
  cs_error_t status;
  event_t *first, **last;
  bool out_of_memory;
  bool quorate, quorum_told, has_provider;
} port_t;

/* ---- events: called by libcpg inside of dispatch ------------------------------------------------ */

static void append(port_t *port, event_t *event) {
  event->next = NULL;
  *port->last = event;
  port->last = &event->next;
}

static port_t *port_of(cpg_handle_t handle) {
  void *context = NULL;
  return cpg_context_get(handle, &context) == CS_OK ? context : NULL;
}

static void on_message(cpg_handle_t handle, const struct cpg_name *group, uint32_t node_id,
                       uint32_t pid, void *bytes, size_t length) {
  port_t *port = port_of(handle);
  (void)group;
  if (port == NULL) return;
  event_t *event = malloc(sizeof *event + length);
  if (event == NULL) {
    port->out_of_memory = true;
    return;
  }
  event->is_message = true;
  event->node_id = node_id;
  event->pid = pid;
  event->length = length;
  memcpy(event->bytes, bytes, length);
  append(port, event);
}

static uint32_t *put_all(uint32_t *at, const struct cpg_address *list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    *at++ = list[i].nodeid;
    *at++ = list[i].pid;
    *at++ = list[i].reason;
  }
  return at;
}

static void on_change(cpg_handle_t handle, const struct cpg_name *group,
                      const struct cpg_address *members, size_t member_count,
                      const struct cpg_address *left, size_t left_count,
                      const struct cpg_address *joined, size_t joined_count) {
  port_t *port = port_of(handle);
  (void)group;
  if (port == NULL) return;
  size_t length = (member_count + left_count + joined_count) * 3 * sizeof(uint32_t);
  event_t *event = malloc(sizeof *event + length);
  if (event == NULL) {
    port->out_of_memory = true;
    return;
  }
  event->is_message = false;
  event->length = length;
  event->members = member_count;
  event->left = left_count;
  event->joined = joined_count;
  uint32_t *at = (uint32_t *)event->bytes;
  at = put_all(at, members, member_count);
  at = put_all(at, left, left_count);
  put_all(at, joined, joined_count);
  append(port, event);
}

static void on_quorum(quorum_handle_t handle, uint32_t quorate, uint64_t ring, uint32_t count,
                      uint32_t *nodes) {
  void *context = NULL;
  (void)ring;
  (void)count;
  (void)nodes;
  if (quorum_context_get(handle, (const void **)&context) != CS_OK || context == NULL) return;
  port_t *port = context;
  port->quorate = quorate != 0;
  port->quorum_told = true;
}

/* ---- life --------------------------------------------------------------------------------------- */

static void release(port_t *port) {
  if (atomic_fetch_sub(&port->references, 1) > 1) return;
  while (port->first != NULL) {
    event_t *next = port->first->next;
    free(port->first);
    port->first = next;
  }
  close(port->stop_fd);
  close(port->go_fd);
  free(port);
}

/* ---- the port's thread -------------------------------------------------------------------------- */

static bool stopped(const port_t *port, int timeout_ms) {
  struct pollfd one = {.fd = port->stop_fd, .events = POLLIN};
  return poll(&one, 1, timeout_ms) > 0;
}

static cs_error_t connect_group(port_t *port) {
  cpg_model_v1_data_t model = {
      .model = CPG_MODEL_V1, .cpg_deliver_fn = on_message, .cpg_confchg_fn = on_change};
  unsigned int node_id;
  cs_error_t status = cpg_model_initialize(&port->handle, CPG_MODEL_V1,
                                           (cpg_model_data_t *)&model, port);
  if (status != CS_OK) return status;
  port->connected = true;
  if ((status = cpg_fd_get(port->handle, &port->fd)) != CS_OK) return status;
  if ((status = cpg_local_get(port->handle, &node_id)) != CS_OK) return status;
  port->node_id = node_id;
  return cpg_join(port->handle, &port->group);
}

static cs_error_t connect_quorum(port_t *port) {
  quorum_callbacks_t callbacks = {.quorum_notify_fn = on_quorum};
  uint32_t type = QUORUM_FREE;
  cs_error_t status = quorum_initialize(&port->handle, &callbacks, &type);
  if (status != CS_OK) return status;
  port->connected = true;
  port->has_provider = type == QUORUM_SET;
  if ((status = quorum_context_set(port->handle, port)) != CS_OK) return status;
  if ((status = quorum_fd_get(port->handle, &port->fd)) != CS_OK) return status;
  return quorum_trackstart(port->handle, CS_TRACK_CURRENT | CS_TRACK_CHANGES);
}

static void disconnect(port_t *port) {
  if (!port->connected) return;
  port->connected = false;
  if (port->kind == GROUP) cpg_finalize(port->handle);
  else quorum_finalize(port->handle);
}

static cs_error_t connect_port(port_t *port) {
  cs_error_t status = CS_ERR_LIBRARY;
  for (int i = 0; i < CONNECT_RETRIES; i++) {
    status = port->kind == GROUP ? connect_group(port) : connect_quorum(port);
    if (status == CS_OK) return status;
    disconnect(port);
    bool is_passing = status == CS_ERR_TRY_AGAIN || status == CS_ERR_EXIST;
    if (!is_passing || stopped(port, CONNECT_RETRY_MS)) break;
  }
  return status;
}

/* Lets the main thread act and waits for its go. False: the port is over. */
static bool hand_over(port_t *port) {
  if (napi_call_threadsafe_function(port->function, NULL, napi_tsfn_blocking) != napi_ok)
    return false;
  for (;;) {
    struct pollfd both[2] = {{.fd = port->stop_fd, .events = POLLIN},
                             {.fd = port->go_fd, .events = POLLIN}};
    if (poll(both, 2, -1) < 0 && errno != EINTR) return false;
    if (both[0].revents != 0) return false;
    uint64_t go;
    if (both[1].revents != 0 && read(port->go_fd, &go, sizeof go) == sizeof go) return true;
  }
}

static void *run(void *argument) {
  port_t *port = argument;
  port->status = connect_port(port);
  bool alive = hand_over(port) && port->status == CS_OK;
  while (alive) {
    struct pollfd both[2] = {{.fd = port->stop_fd, .events = POLLIN},
                             {.fd = port->fd, .events = POLLIN}};
    if (poll(both, 2, -1) < 0) {
      if (errno == EINTR) continue;
      port->status = CS_ERR_LIBRARY;
      hand_over(port);
      break;
    }
    if (both[0].revents != 0) break;
    if (both[1].revents != 0) alive = hand_over(port);
  }
  disconnect(port);
  napi_release_threadsafe_function(port->function, napi_tsfn_release);
  release(port);
  return NULL;
}

/* ---- values ------------------------------------------------------------------------------------- */

static bool put_number(napi_env env, napi_value into, const char *name, double number) {
  napi_value value;
  return napi_create_double(env, number, &value) == napi_ok &&
         napi_set_named_property(env, into, name, value) == napi_ok;
}

/* A plain array of numbers: three an entry. */
static bool put_triples(napi_env env, napi_value into, const char *name, const uint32_t *from,
                        size_t entries) {
  napi_value array, number;
  if (napi_create_array_with_length(env, 3 * entries, &array) != napi_ok) return false;
  for (size_t i = 0; i < 3 * entries; i++)
    if (napi_create_uint32(env, from[i], &number) != napi_ok ||
        napi_set_element(env, array, (uint32_t)i, number) != napi_ok)
      return false;
  return napi_set_named_property(env, into, name, array) == napi_ok;
}

static bool message_value(napi_env env, const event_t *event, napi_value into) {
  napi_value bytes;
  return put_number(env, into, "nodeId", event->node_id) &&
         put_number(env, into, "pid", event->pid) &&
         napi_create_buffer_copy(env, event->length, event->bytes, NULL, &bytes) == napi_ok &&
         napi_set_named_property(env, into, "bytes", bytes) == napi_ok;
}

static bool change_value(napi_env env, const event_t *event, napi_value into) {
  const uint32_t *at = (const uint32_t *)event->bytes;
  return put_triples(env, into, "members", at, event->members) &&
         put_triples(env, into, "left", at + 3 * event->members, event->left) &&
         put_triples(env, into, "joined", at + 3 * (event->members + event->left), event->joined);
}

/* Takes the list off the port. False when V8 could not take an event: it would be missing. */
static bool take_events(napi_env env, port_t *port, napi_value *array) {
  event_t *event = port->first;
  bool fine = napi_create_array(env, array) == napi_ok;
  port->first = NULL;
  port->last = &port->first;
  for (uint32_t i = 0; event != NULL; i++) {
    event_t *next = event->next;
    napi_value one;
    fine = fine && napi_create_object(env, &one) == napi_ok &&
           (event->is_message ? message_value(env, event, one) : change_value(env, event, one)) &&
           napi_set_element(env, *array, i, one) == napi_ok;
    free(event);
    event = next;
  }
  return fine;
}

/* ---- the main thread's part --------------------------------------------------------------------- */

static void signal_fd(int fd) {
  uint64_t one = 1;
  /* An eventfd takes this until its counter is full, which it never is here. */
  if (write(fd, &one, sizeof one) != sizeof one) abort();
}

static void call(napi_env env, napi_value function, const char *what, napi_value value) {
  napi_value arguments[2], receiver, result;
  if (napi_get_undefined(env, &receiver) != napi_ok ||
      napi_create_string_utf8(env, what, NAPI_AUTO_LENGTH, &arguments[0]) != napi_ok)
    return;
  arguments[1] = value;
  if (napi_call_function(env, receiver, function, 2, arguments, &result) != napi_pending_exception)
    return;
  /* A callback that throws is a bug of the program: it ends as any uncaught exception does. */
  napi_value error;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

static void end(napi_env env, port_t *port, napi_value function, cs_error_t status) {
  napi_value number;
  port->over = true;
  signal_fd(port->stop_fd);
  if (napi_create_int32(env, (int32_t)status, &number) == napi_ok) call(env, function, "closed", number);
}

static cs_error_t dispatch(port_t *port) {
  for (int i = 0; i < EVENTS_PER_TURN; i++) {
    cs_error_t status = port->kind == GROUP
                            ? cpg_dispatch(port->handle, CS_DISPATCH_ONE_NONBLOCKING)
                            : quorum_dispatch(port->handle, CS_DISPATCH_ONE_NONBLOCKING);
    if (status == CS_ERR_TRY_AGAIN) return CS_OK;
    if (status != CS_OK) return status;
    if (port->out_of_memory) return CS_ERR_NO_MEMORY;
  }
  return CS_OK;
}

static void on_turn(napi_env env, napi_value function, void *context, void *data) {
  port_t *port = context;
  napi_value value;
  (void)data;
  if (env == NULL || port->over) return;
  if (!port->opened) {
    port->opened = true;
    if (port->status != CS_OK) {
      end(env, port, function, port->status);
      return;
    }
    double what = port->kind == GROUP ? port->node_id : port->has_provider;
    if (napi_create_double(env, what, &value) == napi_ok) call(env, function, "open", value);
    if (!port->over) signal_fd(port->go_fd);
    return;
  }
  cs_error_t status = port->status == CS_OK ? dispatch(port) : port->status;
  if (port->kind == QUORUM && port->quorum_told) {
    port->quorum_told = false;
    if (napi_get_boolean(env, port->quorate, &value) == napi_ok)
      call(env, function, "quorate", value);
  } else if (port->first != NULL) {
    if (take_events(env, port, &value)) call(env, function, "events", value);
    else status = CS_ERR_NO_MEMORY;
  }
  if (port->over) return;
  if (status != CS_OK) end(env, port, function, status);
  else signal_fd(port->go_fd);
}

static void function_gone(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  release(data);
}

static void external_gone(napi_env env, void *data, void *hint) {
  port_t *port = data;
  (void)env;
  (void)hint;
  if (!port->over) {
    port->over = true;
    signal_fd(port->stop_fd);
  }
  release(port);
}

static napi_value fail(napi_env env, const char *text) {
  napi_throw_error(env, NULL, text);
  return NULL;
}

static bool start_thread(port_t *port) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes) != 0) return false;
  bool fine = pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES) == 0 &&
              pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
              pthread_create(&thread, &attributes, run, port) == 0;
  pthread_attr_destroy(&attributes);
  return fine;
}

static napi_value start_port(napi_env env, port_t *port, napi_value callback) {
  napi_value name, external;
  port->last = &port->first;
  port->stop_fd = eventfd(0, EFD_CLOEXEC);
  port->go_fd = eventfd(0, EFD_CLOEXEC);
  atomic_init(&port->references, 1);
  if (port->stop_fd < 0 || port->go_fd < 0 ||
      napi_create_string_utf8(env, "corosync", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_external(env, port, external_gone, NULL, &external) != napi_ok) {
    release(port);
    return fail(env, "cpg: no descriptors or no memory left");
  }
  if (napi_create_threadsafe_function(env, callback, NULL, name, 1, 1, port, function_gone, port,
                                      on_turn, &port->function) != napi_ok)
    return fail(env, "cpg: a function is expected");
  atomic_fetch_add(&port->references, 2);
  if (!start_thread(port)) {
    port->over = true;
    release(port);
    napi_release_threadsafe_function(port->function, napi_tsfn_release);
    return fail(env, "cpg: no thread can be started");
  }
  return external;
}

static bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t wanted) {
  size_t count = wanted;
  if (napi_get_cb_info(env, info, &count, args, NULL, NULL) == napi_ok && count >= wanted)
    return true;
  napi_throw_type_error(env, NULL, "cpg: arguments are missing");
  return false;
}

static port_t *get_port(napi_env env, napi_value value) {
  void *data;
  napi_valuetype type;
  if (napi_typeof(env, value, &type) == napi_ok && type == napi_external &&
      napi_get_value_external(env, value, &data) == napi_ok)
    return data;
  napi_throw_type_error(env, NULL, "cpg: a port is expected");
  return NULL;
}

/* join(group, callback): port */
static napi_value join(napi_env env, napi_callback_info info) {
  napi_value args[2];
  size_t length;
  if (!get_args(env, info, args, 2)) return NULL;
  port_t *port = calloc(1, sizeof *port);
  if (port == NULL) return fail(env, "cpg: no memory left");
  port->kind = GROUP;
  if (napi_get_value_string_utf8(env, args[0], port->group.value, sizeof port->group.value,
                                 &length) != napi_ok ||
      length == 0) {
    free(port);
    return fail(env, "cpg: the name of a group is expected");
  }
  port->group.length = (uint32_t)length;
  return start_port(env, port, args[1]);
}

/* watchQuorum(callback): port */
static napi_value watch_quorum(napi_env env, napi_callback_info info) {
  napi_value args[1];
  if (!get_args(env, info, args, 1)) return NULL;
  port_t *port = calloc(1, sizeof *port);
  if (port == NULL) return fail(env, "cpg: no memory left");
  port->kind = QUORUM;
  return start_port(env, port, args[0]);
}

/* send(port, parts): status */
static napi_value send_parts(napi_env env, napi_callback_info info) {
  napi_value args[2], result;
  uint32_t count;
  if (!get_args(env, info, args, 2)) return NULL;
  port_t *port = get_port(env, args[0]);
  if (port == NULL) return NULL;
  if (napi_get_array_length(env, args[1], &count) != napi_ok || count == 0 || count > PARTS_MAX)
    return fail(env, "cpg: one to four pieces are expected");
  struct iovec parts[PARTS_MAX];
  for (uint32_t i = 0; i < count; i++) {
    napi_value piece;
    if (napi_get_element(env, args[1], i, &piece) != napi_ok ||
        napi_get_buffer_info(env, piece, &parts[i].iov_base, &parts[i].iov_len) != napi_ok)
      return fail(env, "cpg: buffers are expected");
  }
  cs_error_t status = CS_ERR_BAD_HANDLE;
  if (port->kind == GROUP && port->opened && !port->over)
    status = cpg_mcast_joined(port->handle, CPG_TYPE_AGREED, parts, count);
  return napi_create_int32(env, status, &result) == napi_ok ? result : NULL;
}

/* close(port): nothing is called back afterwards */
static napi_value close_port(napi_env env, napi_callback_info info) {
  napi_value args[1];
  if (!get_args(env, info, args, 1)) return NULL;
  port_t *port = get_port(env, args[0]);
  if (port != NULL && !port->over) {
    port->over = true;
    signal_fd(port->stop_fd);
  }
  return NULL;
}

/* ---- addresses ---------------------------------------------------------------------------------- */

typedef struct {
  napi_async_work work;
  napi_deferred deferred;
  cs_error_t status;
  int count;
  char addresses[ADDRESSES_MAX][INET6_ADDRSTRLEN];
} lookup_t;

static void look_up(napi_env env, void *data) {
  lookup_t *lookup = data;
  corosync_cfg_handle_t handle;
  corosync_cfg_callbacks_t callbacks = {0};
  corosync_cfg_node_address_t found[ADDRESSES_MAX];
  unsigned int node_id;
  (void)env;
  for (int i = 0; i < CONNECT_RETRIES; i++) {
    lookup->status = corosync_cfg_initialize(&handle, &callbacks);
    if (lookup->status != CS_ERR_TRY_AGAIN) break;
    poll(NULL, 0, CONNECT_RETRY_MS);
  }
  if (lookup->status != CS_OK) return;
  int count = 0;
  if ((lookup->status = corosync_cfg_local_get(handle, &node_id)) == CS_OK)
    lookup->status = corosync_cfg_get_node_addrs(handle, node_id, ADDRESSES_MAX, &count, found);
  corosync_cfg_finalize(handle);
  for (int i = 0; lookup->status == CS_OK && i < count && i < ADDRESSES_MAX; i++) {
    const struct sockaddr *address = (const struct sockaddr *)found[i].address;
    const void *bytes = address->sa_family == AF_INET6
                            ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                            : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6) continue;
    if (inet_ntop(address->sa_family, bytes, lookup->addresses[lookup->count],
                  INET6_ADDRSTRLEN) != NULL)
      lookup->count++;
  }
}

static bool lookup_value(napi_env env, const lookup_t *lookup, napi_value *into) {
  napi_value list, text;
  if (napi_create_object(env, into) != napi_ok ||
      !put_number(env, *into, "status", lookup->status) ||
      napi_create_array(env, &list) != napi_ok)
    return false;
  for (int i = 0; i < lookup->count; i++)
    if (napi_create_string_utf8(env, lookup->addresses[i], NAPI_AUTO_LENGTH, &text) != napi_ok ||
        napi_set_element(env, list, (uint32_t)i, text) != napi_ok)
      return false;
  return napi_set_named_property(env, *into, "addresses", list) == napi_ok;
}

static void looked_up(napi_env env, napi_status status, void *data) {
  lookup_t *lookup = data;
  napi_value value;
  if (status == napi_ok && lookup_value(env, lookup, &value))
    napi_resolve_deferred(env, lookup->deferred, value);
  napi_delete_async_work(env, lookup->work);
  free(lookup);
}

/* localAddresses(): Promise<{ status, addresses }> */
static napi_value local_addresses(napi_env env, napi_callback_info info) {
  napi_value promise, name;
  (void)info;
  lookup_t *lookup = calloc(1, sizeof *lookup);
  if (lookup == NULL) return fail(env, "cpg: no memory left");
  if (napi_create_promise(env, &lookup->deferred, &promise) != napi_ok ||
      napi_create_string_utf8(env, "corosync", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, look_up, looked_up, lookup, &lookup->work) !=
          napi_ok ||
      napi_queue_async_work(env, lookup->work) != napi_ok) {
    free(lookup);
    return fail(env, "cpg: the work cannot be queued");
  }
  return promise;
}

/* ---- module ------------------------------------------------------------------------------------- */

NAPI_MODULE_INIT() {
  const struct {
    const char *name;
    napi_callback call;
  } functions[] = {
      {"join", join},
      {"watchQuorum", watch_quorum},
      {"send", send_parts},
      {"close", close_port},
      {"localAddresses", local_addresses},
  };
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) {
      napi_throw_error(env, NULL, "cpg: the functions cannot be exported");
      return NULL;
    }
  }
  return exports;
}
