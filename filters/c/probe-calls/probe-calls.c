/* probe-calls: calls out of the host, and logs what comes of each. The path of a request chooses
 * what is called; the stream waits until a tick, half a second later, lets it go on. As `probe`,
 * it is a ruler to hold against two hosts, not a filter to deploy. */

#include "../line.h"

/* Callbacks have parameters that nothing here needs. */
#pragma clang diagnostic ignored "-Wunused-parameter"

PROXY_WASM_MODULE

#define IMPORT(name) PROXY_WASM_IMPORT(name) uint32_t name
IMPORT(proxy_get_header_map_pairs)(uint32_t, char **, size_t *);
IMPORT(proxy_get_header_map_size)(uint32_t, uint32_t *);
IMPORT(proxy_add_header_map_value)(uint32_t, const char *, size_t, const char *, size_t);
IMPORT(proxy_get_buffer_status)(uint32_t, uint32_t *, uint32_t *);
IMPORT(proxy_register_shared_queue)(const char *, size_t, uint32_t *);
IMPORT(proxy_enqueue_shared_queue)(uint32_t, const char *, size_t);
IMPORT(proxy_dequeue_shared_queue)(uint32_t, char **, size_t *);
IMPORT(proxy_continue_stream)(uint32_t);
IMPORT(proxy_get_status)(uint32_t *, char **, size_t *);
IMPORT(proxy_set_effective_context)(uint32_t);
IMPORT(proxy_set_tick_period_milliseconds)(uint32_t);
IMPORT(proxy_http_call)(const char *, size_t, const char *, size_t, const char *, size_t,
                        const char *, size_t, uint32_t, uint32_t *);
IMPORT(proxy_grpc_call)(const char *, size_t, const char *, size_t, const char *, size_t,
                        const char *, size_t, const char *, size_t, uint32_t, uint32_t *);
IMPORT(proxy_grpc_stream)(const char *, size_t, const char *, size_t, const char *, size_t,
                          const char *, size_t, uint32_t *);
IMPORT(proxy_grpc_send)(uint32_t, const char *, size_t, uint32_t);
IMPORT(proxy_grpc_cancel)(uint32_t);
IMPORT(proxy_grpc_close)(uint32_t);
IMPORT(envoy_resolve_dns)(const char *, size_t, uint32_t *);

/* What is in the token cell before a call: shows whether the host wrote it. */
#define UNTOUCHED 4242u

static void result(uint32_t status, uint32_t cell) {
  field("result", status);
  field("cell", cell);
  say();
}

/* Header lists: pairs of strings up to a NULL. */
static char list[2048];
static size_t list_size;

static void word(size_t at, uint32_t value) { memcpy(list + at, &value, sizeof value); }

static void build(const char *const *pairs) {
  uint32_t count = 0;
  while (pairs[2 * count]) count++;
  list_size = 4 + 8 * count;
  word(0, count);
  for (uint32_t i = 0; i < 2 * count; i++) {
    size_t size = strlen(pairs[i]);
    word(4 + 4 * i, (uint32_t)size);
    memcpy(list + list_size, pairs[i], size + 1);
    list_size += size + 1;
  }
}

#define PAIRS(...) (const char *const[]){__VA_ARGS__, NULL}
#define GET PAIRS(":method", "GET", ":path", "/call", ":authority", "calls.example")
#define GET_WITH(...) \
  PAIRS(":method", "GET", ":path", "/call", ":authority", "calls.example", __VA_ARGS__)

static uint32_t http(const char *cluster, const char *const *headers, const char *body,
                     const char *const *trailers, uint32_t timeout) {
  static char trailer_list[2048];
  size_t trailers_size = 0;
  if (trailers) {
    build(trailers);
    memcpy(trailer_list, list, trailers_size = list_size);
  }
  build(headers);
  uint32_t token = UNTOUCHED;
  uint32_t status =
      proxy_http_call(cluster, strlen(cluster), list, list_size, body, strlen(body), trailer_list,
                      trailers_size, timeout, &token);
  put("http ");
  put(cluster);
  result(status, token);
  return token;
}

static uint32_t grpc_bytes(const char *service, size_t size, const char *request, uint32_t timeout) {
  uint32_t token = UNTOUCHED;
  build(PAIRS("x-probe", "metadata"));
  uint32_t status = proxy_grpc_call(service, size, "probe.Service", 13, "Method", 6, list,
                                    list_size, request, strlen(request), timeout, &token);
  put("grpc ");
  put_bytes(service, size);
  result(status, token);
  return token;
}

static uint32_t grpc(const char *cluster, uint32_t timeout) {
  return grpc_bytes(cluster, strlen(cluster), "ping", timeout);
}

static uint32_t stream(const char *cluster) {
  uint32_t token = UNTOUCHED;
  build(PAIRS("x-probe", "metadata"));
  uint32_t status = proxy_grpc_stream(cluster, strlen(cluster), "probe.Service", 13, "Stream", 6,
                                      list, list_size, &token);
  put("stream ");
  put(cluster);
  result(status, token);
  return token;
}

static void outcome(const char *what, uint32_t status) {
  put(what);
  field("result", status);
  say();
}

static uint32_t resolve(const char *name) {
  uint32_t token = UNTOUCHED;
  uint32_t status = envoy_resolve_dns(name, strlen(name), &token);
  put("dns ");
  put(name);
  result(status, token);
  return token;
}

static void dump_buffer(uint32_t type) {
  char *bytes = NULL;
  size_t size = 0;
  uint32_t buffer_size = UNTOUCHED, flags = UNTOUCHED;
  put("  buffer");
  field("type", type);
  field("status", proxy_get_buffer_status(type, &buffer_size, &flags));
  field("size", buffer_size);
  field("flags", flags);
  field("bytes", proxy_get_buffer_bytes(type, 0, 4096, &bytes, &size));
  field("count", (uint32_t)size);
  put(" ");
  put_bytes(bytes, size < 1024 ? size : 16);
  field("set", proxy_set_buffer_bytes(type, 0, 0, "x", 1));
  say();
}

/* What a callback of a call can reach. */
static void dump(void) {
  for (uint32_t map = 4; map < 8; map++) {
    char *bytes = NULL;
    size_t size = 0;
    uint32_t map_size = UNTOUCHED;
    uint32_t status = proxy_get_header_map_pairs(map, &bytes, &size);
    put("  map");
    field("type", map);
    field("pairs", status);
    field("size", proxy_get_header_map_size(map, &map_size));
    field("bytes", map_size);
    char *value = NULL;
    size_t value_size = 0;
    field("value", proxy_get_header_map_value(map, "x-answer", 8, &value, &value_size));
    put_bytes(value, value_size);
    field("add", proxy_add_header_map_value(map, "x-added", 7, "1", 1));
    if (size) {
      uint32_t count, sizes[2];
      memcpy(&count, bytes, 4);
      char *at = bytes + 4 + 8 * count;
      for (uint32_t i = 0; i < count; i++) {
        memcpy(sizes, bytes + 4 + 8 * i, 8);
        put(" [");
        put_bytes(at, sizes[0]);
        put(": ");
        put_bytes(at + sizes[0] + 1, sizes[1]);
        put("]");
        at += sizes[0] + sizes[1] + 2;
      }
    }
    say();
  }
  dump_buffer(4);
  dump_buffer(5);
  uint32_t code = UNTOUCHED;
  char *message = NULL;
  size_t size = 0;
  put("  status");
  field("result", proxy_get_status(&code, &message, &size));
  field("code", code);
  put(" ");
  put_bytes(message, size);
  say();
}

static uint32_t waiting;
static uint32_t open_stream;
static uint32_t queue;

static void calls(const char *path, size_t size) {
#define IS(name) (size == sizeof(name) - 1 && !memcmp(path, name, size))
  if (IS("/echo")) {
    http("upstream", GET, "", NULL, 0);
  } else if (IS("/echo-body")) {
    http("upstream",
         PAIRS(":method", "POST", ":path", "/call?a=b", ":authority", "calls.example", ":scheme",
               "https", "X-Upper", "1", "x-two", "1", "x-two", "2", "user-agent", "probe"),
         "body", NULL, 300);
  } else if (IS("/echo-trailers")) {
    http("upstream", GET_WITH("x-with", "trailers"), "body", PAIRS("x-trailer", "end"), 300);
  } else if (IS("/echo-length")) {
    http("upstream", GET_WITH("content-length", "9"), "", NULL, 300);
  } else if (IS("/echo-host")) {
    http("upstream", GET_WITH("host", "other"), "", NULL, 0);
  } else if (IS("/http-bad")) {
    http("unknown", GET, "", NULL, 0);
    http("", GET, "", NULL, 0);
    http("upstream", PAIRS(":path", "/", ":authority", "a"), "", NULL, 0);
    http("upstream", PAIRS(":method", "GET", ":authority", "a"), "", NULL, 0);
    http("upstream", PAIRS(":method", "GET", ":path", "/"), "", NULL, 0);
    http("upstream", GET, "", NULL, 0x80000000u);
    http("unknown", GET, "", NULL, 0x80000000u);
    uint32_t token = UNTOUCHED;
    uint32_t status = proxy_http_call("upstream", 8, "\1\0\0\0", 4, "", 0, "", 0, 0, &token);
    put("http malformed");
    result(status, token);
    build(GET);
    outcome("http token cell",
            proxy_http_call("upstream", 8, list, list_size, "", 0, "", 0, 0, (uint32_t *)-4));
    outcome("http body",
            proxy_http_call("upstream", 8, list, list_size, (char *)-4, 8, "", 0, 0, &token));
  } else if (IS("/answers")) {
    http("given", GET, "", NULL, 0);
    http("slow", GET, "", NULL, 400);
  } else if (IS("/head")) {
    http("given", PAIRS(":method", "HEAD", ":path", "/", ":authority", "a"), "", NULL, 0);
  } else if (IS("/short")) {
    http("short", GET, "", NULL, 0);
  } else if (IS("/failures")) {
    http("refused", GET, "", NULL, 0);
    http("none", GET, "", NULL, 0);
    http("resetting", GET, "", NULL, 0);
    http("silent", GET, "", NULL, 200);
    http("silent", GET, "", NULL, 0);
  } else if (IS("/large")) {
    http("large", GET, "", NULL, 0);
  } else if (IS("/grpc")) {
    grpc("unknown", 0);
    grpc_bytes("\n\6\n\4grpc", 8, "", 300);
    grpc_bytes("\n\11\n\7unknown", 11, "", 300);
  } else if (IS("/grpc-deadline")) {
    grpc("grpc", 0);
  } else if (IS("/grpc-denies")) {
    grpc("grpc-denies", 300);
  } else if (IS("/grpc-mute")) {
    grpc("grpc-mute", 300);
  } else if (IS("/grpc-failures")) {
    grpc("none", 300);
    grpc("refused", 300);
    grpc("silent", 200);
  } else if (IS("/grpc-no-grpc")) {
    grpc("given", 300);
  } else if (IS("/grpc-cancel")) {
    uint32_t token = grpc("grpc", 300);
    outcome("send", proxy_grpc_send(token, "x", 1, 0));
    outcome("cancel", proxy_grpc_cancel(token));
    outcome("cancel", proxy_grpc_cancel(token));
    token = grpc("grpc", 300);
    outcome("close", proxy_grpc_close(token));
    token = stream("grpc");
    outcome("cancel", proxy_grpc_cancel(token));
    outcome("send", proxy_grpc_send(token, "x", 1, 0));
    outcome("close", proxy_grpc_close(token));
    outcome("close", proxy_grpc_close(8));
    outcome("send", proxy_grpc_send(8, "x", 1, 0));
  } else if (IS("/stream")) {
    open_stream = stream("grpc");
    outcome("send", proxy_grpc_send(open_stream, "one", 3, 0));
    outcome("send", proxy_grpc_send(open_stream, "two", 3, 1));
    outcome("send", proxy_grpc_send(open_stream, "three", 5, 0));
  } else if (IS("/stream-close")) {
    open_stream = stream("grpc-denies");
    outcome("close", proxy_grpc_close(open_stream));
  } else if (IS("/stream-failures")) {
    stream("unknown");
    stream("none");
    stream("refused");
  } else if (IS("/dns")) {
    resolve("localhost");
    resolve("no-such-host.invalid");
    resolve("127.0.0.1");
    outcome("dns name", envoy_resolve_dns((char *)-4, 8, &queue));
    outcome("dns cell", envoy_resolve_dns("localhost", 9, (uint32_t *)-4));
    resolve("localhost");
  } else if (IS("/queue")) {
    outcome("register", proxy_register_shared_queue("calls", 5, &queue));
    outcome("enqueue", proxy_enqueue_shared_queue(queue, "one", 3));
    http("none", GET, "", NULL, 0);
    grpc("none", 300);
    outcome("enqueue", proxy_enqueue_shared_queue(queue, "two", 3));
    http("upstream", GET, "", NULL, 0);
  }
}

PROXY_WASM_EXPORT(proxy_on_request_headers)
uint32_t on_request_headers(uint32_t id, uint32_t count, uint32_t end) {
  char *path = NULL;
  size_t size = 0;
  proxy_get_header_map_value(MAP_REQUEST_HEADERS, ":path", 5, &path, &size);
  waiting = id;
  open_stream = 0;
  if (size == 5 && !memcmp(path, "/gone", 5)) {
    http("slow", GET, "", NULL, 0);
    return ACTION_CONTINUE;
  }
  calls(path, size);
  proxy_set_tick_period_milliseconds(500);
  return ACTION_PAUSE;
}

PROXY_WASM_EXPORT(proxy_on_tick) void on_tick(uint32_t id) {
  put("tick");
  say();
  dump();
  proxy_set_tick_period_milliseconds(0);
  outcome("effective", proxy_set_effective_context(waiting));
  outcome("continue", proxy_continue_stream(0));
}

PROXY_WASM_EXPORT(proxy_on_http_call_response)
void on_http_call_response(uint32_t id, uint32_t token, uint32_t headers, uint32_t body,
                           uint32_t trailers) {
  put("response");
  field("token", token);
  field("headers", headers);
  field("body", body);
  field("trailers", trailers);
  say();
  dump();
}

#define METADATA(export, text)                                                      \
  PROXY_WASM_EXPORT(export) void on_##text(uint32_t id, uint32_t token, uint32_t n) { \
    put(#text);                                                                     \
    field("token", token);                                                          \
    field("count", n);                                                              \
    say();                                                                          \
    dump();                                                                         \
  }
METADATA(proxy_on_grpc_receive_initial_metadata, initial_metadata)
METADATA(proxy_on_grpc_receive_trailing_metadata, trailing_metadata)
METADATA(proxy_on_grpc_receive, receive)

/* Call data is the buffer that was last selected, which Envoy may have freed: it is read only here,
 * where it is that of the call. */
PROXY_WASM_EXPORT(envoy_on_resolve_dns)
void on_resolved(uint32_t id, uint32_t token, uint32_t size) {
  put("resolved");
  field("token", token);
  field("size", size);
  say();
  dump_buffer(8);
}

PROXY_WASM_EXPORT(proxy_on_grpc_close)
void on_grpc_close(uint32_t id, uint32_t token, uint32_t status) {
  put("close");
  field("token", token);
  field("status", status);
  say();
  dump();
  if (token == open_stream) outcome("close", proxy_grpc_close(token));
  if (token == open_stream) outcome("close", proxy_grpc_close(token));
}

PROXY_WASM_EXPORT(proxy_on_queue_ready) void on_queue_ready(uint32_t id, uint32_t token) {
  char *item = NULL;
  size_t size = 0;
  put("queue");
  field("result", proxy_dequeue_shared_queue(token, &item, &size));
  put(" ");
  put_bytes(item, size);
  say();
}

PROXY_WASM_EXPORT(proxy_on_delete) void on_delete(uint32_t id) {
  put("delete");
  say();
}
