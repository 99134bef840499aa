/* probe-script: does in each callback what the request's header `x-do` says, and logs each callback
 * with its arguments and each result. So any course of a stream can be tried in two hosts without
 * another module: as `probe`, it is a ruler, not a filter to deploy.
 *
 *   x-do: request_headers:pause,tick=10;tick:effective,continue=0;response_body2:append=1
 *
 * A rule is a callback, which of its calls on the stream is meant (without a number, all of them), and
 * what to do there. */

#include "../line.h"

/* Callbacks have parameters that nothing here needs. */
#pragma clang diagnostic ignored "-Wunused-parameter"

PROXY_WASM_MODULE

#define IMPORT(name) PROXY_WASM_IMPORT(name) uint32_t name
IMPORT(proxy_get_header_map_pairs)(uint32_t, char **, size_t *);
IMPORT(proxy_set_header_map_pairs)(uint32_t, const char *, size_t);
IMPORT(proxy_add_header_map_value)(uint32_t, const char *, size_t, const char *, size_t);
IMPORT(proxy_get_buffer_status)(uint32_t, uint32_t *, uint32_t *);
IMPORT(proxy_get_property)(const char *, size_t, char **, size_t *);
IMPORT(proxy_continue_stream)(uint32_t);
IMPORT(proxy_close_stream)(uint32_t);
IMPORT(proxy_done)(void);
IMPORT(proxy_set_effective_context)(uint32_t);
IMPORT(proxy_set_tick_period_milliseconds)(uint32_t);
IMPORT(proxy_http_call)(const char *, size_t, const char *, size_t, const char *, size_t,
                        const char *, size_t, uint32_t, uint32_t *);

/* The stream that runs: one at a time. */
static char script[2048];
static size_t script_size;
static uint32_t stream;

static const char *const callbacks[] = {
    "request_headers", "request_body", "request_trailers", "response_headers", "response_body",
    "response_trailers", "tick", "call", "log", "done", "delete", "request_metadata",
    "response_metadata", NULL};
static uint32_t calls[sizeof callbacks / sizeof *callbacks];

enum { TICK = 6, CALL, LOG, DONE, DELETE, REQUEST_METADATA, RESPONSE_METADATA };

static int is(const char *at, size_t size, const char *word) {
  return size == strlen(word) && !memcmp(at, word, size);
}

static uint32_t number(const char *at, size_t size) {
  uint32_t value = 0;
  while (size-- && *at >= '0' && *at <= '9') value = value * 10 + (uint32_t)(*at++ - '0');
  return value;
}

static size_t until(const char *at, size_t size, char stop) {
  const char *found = memchr(at, stop, size);
  return found ? (size_t)(found - at) : size;
}

static void property(const char *path, size_t size) {
  char segments[128], *value = NULL;
  size_t value_size = 0;
  if (size > sizeof segments) return;
  memcpy(segments, path, size);
  for (size_t i = 0; i < size; i++)
    if (segments[i] == '.') segments[i] = 0;
  field("is", proxy_get_property(segments, size, &value, &value_size));
  put(" ");
  put_bytes(value, value_size);
}

static void map(uint32_t type) {
  char *bytes = NULL;
  size_t size = 0;
  field("pairs", proxy_get_header_map_pairs(type, &bytes, &size));
  uint32_t count = 0;
  if (size >= 4) memcpy(&count, bytes, 4);
  field("count", count);
}

static void buffer(uint32_t type) {
  uint32_t size = 4242, flags = 4242;
  char *bytes = NULL;
  size_t count = 0;
  field("status", proxy_get_buffer_status(type, &size, &flags));
  field("size", size);
  field("flags", flags);
  field("bytes", proxy_get_buffer_bytes(type, 0, 4096, &bytes, &count));
  field("count", (uint32_t)count);
  put(" ");
  put_bytes(bytes, count < 80 ? count : 80);
}

static uint32_t reply(uint32_t status, const char *body, int32_t grpc) {
  static const char headers[] = "\1\0\0\0\7\0\0\0\3\0\0\0x-reply\0yes";
  return proxy_send_local_response(status, "by_script", 9, body, strlen(body), headers,
                                   sizeof headers, grpc);
}

/* Sets the request's trailers to so many equal pairs; of a list that is cut short the last words are
 * missing. */
static uint32_t set_pairs(uint32_t count, size_t missing) {
  static char list[16384];
  uint32_t sizes[2] = {1, 1};
  char *at = list;
  if (count > 1100) count = 1100;
  memcpy(at, &count, 4);
  at += 4;
  for (uint32_t i = 0; i < count; i++, at += 8) memcpy(at, sizes, 8);
  for (uint32_t i = 0; i < count; i++, at += 4) memcpy(at, "a\0b", 4);
  size_t size = (size_t)(at - list);
  return proxy_set_header_map_pairs(1, list, size > missing ? size - missing : 0);
}

static uint32_t call(void) {
  static const char headers[] =
      "\3\0\0\0\7\0\0\0\3\0\0\0\5\0\0\0\1\0\0\0\12\0\0\0\1\0\0\0:method\0GET\0:path\0/\0:authority\0a";
  uint32_t token;
  return proxy_http_call("upstream", 8, headers, sizeof headers, "", 0, "", 0, 5000, &token);
}

static void act(const char *word, size_t size, uint32_t *result) {
  size_t name = until(word, size, '=');
  const char *text = word + (name < size ? name + 1 : size);
  size_t text_size = size - (size_t)(text - word);
  uint32_t n = number(text, text_size);
#define IS(action) is(word, name, action)
  put("  ");
  put_bytes(word, size);
  if (IS("pause")) *result = 1;
  else if (IS("return")) *result = n;
  else if (IS("trap")) {
    say();
    __builtin_trap();
  }
  else if (IS("reply")) field("is", reply(n, "from the script", -1));
  else if (IS("empty")) field("is", reply(n, "", -1));
  else if (IS("grpc")) field("is", reply(200, "", (int32_t)n));
  else if (IS("continue")) field("is", proxy_continue_stream(n));
  else if (IS("close")) field("is", proxy_close_stream(n));
  else if (IS("tick")) field("is", proxy_set_tick_period_milliseconds(n));
  else if (IS("effective")) field("is", proxy_set_effective_context(stream));
  else if (IS("call")) field("is", call());
  else if (IS("finish")) field("is", proxy_done());
  else if (IS("get")) property(text, text_size);
  else if (IS("map")) map(n);
  else if (IS("pairs")) field("is", set_pairs(n, 0));
  else if (IS("cut")) field("is", set_pairs(3, n));
  else if (IS("add")) field("is", proxy_add_header_map_value(n, "x-script", 8, "yes", 3));
  else if (IS("length")) field("is", proxy_remove_header_map_value(n, "content-length", 14));
  else if (IS("remove")) field("is", proxy_remove_header_map_value(n, ":path", 5));
  else if (IS("buffer")) buffer(n);
  else if (IS("set")) field("is", proxy_set_buffer_bytes(n, 0, 1 << 20, "new", 3));
  else if (IS("drain")) field("is", proxy_set_buffer_bytes(n, 0, 1 << 20, "", 0));
  else if (IS("prepend")) field("is", proxy_set_buffer_bytes(n, 0, 0, "before", 6));
  else if (IS("append")) field("is", proxy_set_buffer_bytes(n, 1 << 20, 0, "after", 5));
  else put(" is no action");
  say();
}

/* Does what the script says of this callback; gives the callback's result. */
static uint32_t run(uint32_t callback) {
  uint32_t result = callback == DONE, nth = ++calls[callback];
  for (size_t at = 0; at < script_size;) {
    size_t rule = until(script + at, script_size - at, ';');
    size_t name = until(script + at, rule, ':');
    size_t word = strlen(callbacks[callback]);
    uint32_t meant = name > word ? number(script + at + word, name - word) : 0;
    if (name >= word && !memcmp(script + at, callbacks[callback], word) &&
        (name == word || meant == nth)) {
      for (size_t i = name + 1; i < rule;) {
        size_t size = until(script + at + i, rule - i, ',');
        act(script + at + i, size, &result);
        i += size + 1;
      }
    }
    at += rule + 1;
  }
  return result;
}

static uint32_t step(uint32_t callback, uint32_t size, uint32_t end) {
  put(callbacks[callback]);
  field("size", size);
  field("end", end);
  say();
  return run(callback);
}

PROXY_WASM_EXPORT(proxy_on_request_headers)
uint32_t on_request_headers(uint32_t id, uint32_t count, uint32_t end) {
  char *value = NULL;
  script_size = 0;
  proxy_get_header_map_value(MAP_REQUEST_HEADERS, "x-do", 4, &value, &script_size);
  if (script_size > sizeof script) script_size = sizeof script;
  memcpy(script, value, script_size);
  memset(calls, 0, sizeof calls);
  stream = id;
  return step(0, count, end);
}

#define STEP(export, index)                                                 \
  PROXY_WASM_EXPORT(export)                                                 \
  uint32_t on_##index(uint32_t id, uint32_t size, uint32_t end) { return step(index, size, end); }
STEP(proxy_on_request_body, 1)
STEP(proxy_on_response_headers, 3)
STEP(proxy_on_response_body, 4)

#define COUNTED(export, index)                                              \
  PROXY_WASM_EXPORT(export) uint32_t on_##index(uint32_t id, uint32_t count) { \
    return step(index, count, 1);                                           \
  }
COUNTED(proxy_on_request_trailers, 2)
COUNTED(proxy_on_response_trailers, 5)
COUNTED(proxy_on_request_metadata, REQUEST_METADATA)
COUNTED(proxy_on_response_metadata, RESPONSE_METADATA)

static uint32_t event(uint32_t callback) {
  put(callbacks[callback]);
  say();
  return run(callback);
}

PROXY_WASM_EXPORT(proxy_on_tick) void on_tick(uint32_t id) {
  proxy_set_tick_period_milliseconds(0);
  event(TICK);
}

PROXY_WASM_EXPORT(proxy_on_http_call_response)
void on_call(uint32_t id, uint32_t token, uint32_t headers, uint32_t body, uint32_t trailers) {
  event(CALL);
}

PROXY_WASM_EXPORT(proxy_on_log) void on_log(uint32_t id) { event(LOG); }

PROXY_WASM_EXPORT(proxy_on_done) uint32_t on_done(uint32_t id) {
  return id == stream ? event(DONE) : 1;
}

PROXY_WASM_EXPORT(proxy_on_delete) void on_delete(uint32_t id) {
  if (id == stream) event(DELETE);
}
