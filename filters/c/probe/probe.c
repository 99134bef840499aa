/* probe: calls the host's functions in every phase, with good and bad arguments, and
 * logs each result code and value as a line. It changes nothing that matters to a
 * request. Run in two hosts, its logs compare line by line: it is a ruler, not a
 * filter to deploy. Values that no two runs share (times, ports, ids) are left out. */

#include "../line.h"

/* Callbacks have parameters that nothing here needs. */
#pragma clang diagnostic ignored "-Wunused-parameter"

PROXY_WASM_MODULE

#define IMPORT(name) PROXY_WASM_IMPORT(name) uint32_t name
IMPORT(proxy_get_header_map_pairs)(uint32_t, char **, size_t *);
IMPORT(proxy_set_header_map_pairs)(uint32_t, const char *, size_t);
IMPORT(proxy_get_header_map_size)(uint32_t, uint32_t *);
IMPORT(proxy_add_header_map_value)(uint32_t, const char *, size_t, const char *, size_t);
IMPORT(proxy_get_buffer_status)(uint32_t, uint32_t *, uint32_t *);
IMPORT(proxy_get_property)(const char *, size_t, char **, size_t *);
IMPORT(proxy_set_property)(const char *, size_t, const char *, size_t);
IMPORT(proxy_get_shared_data)(const char *, size_t, char **, size_t *, uint32_t *);
IMPORT(proxy_set_shared_data)(const char *, size_t, const char *, size_t, uint32_t);
IMPORT(proxy_register_shared_queue)(const char *, size_t, uint32_t *);
IMPORT(proxy_resolve_shared_queue)(const char *, size_t, const char *, size_t, uint32_t *);
IMPORT(proxy_enqueue_shared_queue)(uint32_t, const char *, size_t);
IMPORT(proxy_dequeue_shared_queue)(uint32_t, char **, size_t *);
IMPORT(proxy_define_metric)(uint32_t, const char *, size_t, uint32_t *);
IMPORT(proxy_increment_metric)(uint32_t, int64_t);
IMPORT(proxy_record_metric)(uint32_t, uint64_t);
IMPORT(proxy_get_metric)(uint32_t, uint64_t *);
IMPORT(proxy_continue_stream)(uint32_t);
IMPORT(proxy_close_stream)(uint32_t);
IMPORT(proxy_get_log_level)(uint32_t *);
IMPORT(proxy_get_current_time_nanoseconds)(uint64_t *);
IMPORT(proxy_get_status)(uint32_t *, char **, size_t *);
IMPORT(proxy_set_effective_context)(uint32_t);
IMPORT(proxy_set_tick_period_milliseconds)(uint32_t);
IMPORT(proxy_done)(void);
IMPORT(proxy_call_foreign_function)(const char *, size_t, const char *, size_t, char **, size_t *);
IMPORT(proxy_http_call)(const char *, size_t, const char *, size_t, const char *, size_t,
                        const char *, size_t, uint32_t, uint32_t *);
IMPORT(proxy_grpc_call)(const char *, size_t, const char *, size_t, const char *, size_t,
                        const char *, size_t, const char *, size_t, uint32_t, uint32_t *);
IMPORT(proxy_grpc_send)(uint32_t, const char *, size_t, uint32_t);
IMPORT(proxy_grpc_cancel)(uint32_t);
IMPORT(proxy_grpc_close)(uint32_t);

/* Nothing is freed in a phase; the allocations of a phase are given back at its end. */

static const char *phase;

static void begin(const char *what) {
  length = 0;
  put(phase);
  put(" ");
  put(what);
}

static void end(void) { proxy_log(LOG_INFO, line, length); }

static void code(const char *what, uint32_t status) {
  begin(what);
  put(" = ");
  put_number(status);
  end();
}

static void value(const char *what, uint32_t status, char *bytes, size_t size) {
  begin(what);
  put(" = ");
  put_number(status);
  if (status == STATUS_OK) {
    put(" [");
    put_number((int64_t)size);
    put("] ");
    put_bytes(bytes, size < 400 ? size : 400);
    free(bytes);
  }
  end();
}

static const char *join(const char *name, uint32_t number) {
  static char text[64];
  size_t size = strlen(name);
  memcpy(text, name, size);
  text[size++] = ' ';
  if (number >= 10) text[size++] = (char)('0' + number / 10 % 10);
  text[size++] = (char)('0' + number % 10);
  text[size] = 0;
  return text;
}

static void maps(void) {
  for (uint32_t map = 0; map <= 8; map++) {
    char *bytes = NULL;
    size_t size = 0;
    uint32_t number = 0;
    uint32_t status = proxy_get_header_map_value(map, ":status", 7, &bytes, &size);
    value(join("get :status", map), status, bytes, size);
    status = proxy_get_header_map_value(map, "X-Probe-In", 10, &bytes, &size);
    value(join("get X-Probe-In", map), status, bytes, size);
    status = proxy_get_header_map_value(map, "x-none", 6, &bytes, &size);
    value(join("get x-none", map), status, bytes, size);
    status = proxy_get_header_map_value(map, (char *)0xfffffff0u, 6, &bytes, &size);
    code(join("get bad pointer", map), status);
    bytes = NULL;
    size = 77;
    status = proxy_get_header_map_pairs(map, &bytes, &size);
    begin(join("pairs", map));
    put(" = ");
    put_number(status);
    put(size == 0 ? " none" : " some");
    end();
    free(bytes);
    status = proxy_get_header_map_size(map, &number);
    begin(join("size", map));
    put(" = ");
    put_number(status);
    put(status == STATUS_OK && number > 0 ? " some" : " none");
    end();
  }
}

static void change_maps(void) {
  for (uint32_t map = 0; map <= 8; map++) {
    char *bytes = NULL;
    size_t size = 0;
    code(join("add", map), proxy_add_header_map_value(map, "X-Probe", 7, "1", 1));
    code(join("add again", map), proxy_add_header_map_value(map, "x-probe", 7, "2", 1));
    uint32_t status = proxy_get_header_map_value(map, "x-probe", 7, &bytes, &size);
    value(join("get x-probe", map), status, bytes, size);
    code(join("replace", map), proxy_replace_header_map_value(map, "x-probe", 7, "3", 1));
    status = proxy_get_header_map_value(map, "x-probe", 7, &bytes, &size);
    value(join("get x-probe", map), status, bytes, size);
    code(join("replace absent", map), proxy_replace_header_map_value(map, "x-new", 5, "", 0));
    status = proxy_get_header_map_value(map, "x-new", 5, &bytes, &size);
    value(join("get x-new", map), status, bytes, size);
    code(join("remove", map), proxy_remove_header_map_value(map, "X-NEW", 5));
    code(join("remove absent", map), proxy_remove_header_map_value(map, "x-absent", 8));
    code(join("remove x-probe", map), proxy_remove_header_map_value(map, "x-probe", 7));
  }
}

static void buffers(void) {
  for (uint32_t buffer = 0; buffer <= 9; buffer++) {
    uint32_t size = 77, flags = 77;
    uint32_t status = proxy_get_buffer_status(buffer, &size, &flags);
    begin(join("buffer status", buffer));
    put(" = ");
    put_number(status);
    if (status == STATUS_OK) {
      put(" ");
      put_number(size);
      put(" ");
      put_number(flags);
    }
    end();
    char *bytes = NULL;
    size_t taken = 0;
    status = proxy_get_buffer_bytes(buffer, 0, 5, &bytes, &taken);
    value(join("buffer 0..5", buffer), status, bytes, taken);
    status = proxy_get_buffer_bytes(buffer, 2, 0xffffffffu, &bytes, &taken);
    value(join("buffer 2..", buffer), status, bytes, taken);
    status = proxy_get_buffer_bytes(buffer, 1000000, 5, &bytes, &taken);
    value(join("buffer beyond", buffer), status, bytes, taken);
    if (buffer > 1) code(join("buffer set", buffer), proxy_set_buffer_bytes(buffer, 0, 0, "x", 1));
    code(join("buffer set bad", buffer),
         proxy_set_buffer_bytes(buffer, 0, 0, (char *)0xfffffff0u, 5));
  }
}

/* Paths with `/` for the NUL between parts. */
static const char *const paths[] = {
    "plugin_name", "plugin_root_id", "plugin_vm_id", "plugin_name/x", "", "/", "none", "request",
    "request/path", "request/url_path", "request/query", "request/host", "request/scheme",
    "request/method", "request/referer", "request/useragent", "request/headers/x-probe-in",
    "request/headers/X-Probe-In", "request/headers/none", "request/headers_bytes/x",
    "request/protocol", "request/size", "request/none", "response", "response/code",
    "response/code_details", "response/flags", "response/grpc_status",
    "response/headers/content-type", "response/headers/none", "response/trailers/x-up-trailer",
    "response/none", "connection", "connection/mtls", "connection/peer_certificate_valid",
    "connection/requested_server_name", "connection/tls_version", "connection/none",
    "connection/subject_peer_certificate", "connection/termination_details", "upstream",
    "upstream/locality", "upstream/transport_failure_reason", "upstream/request_attempt_count",
    "upstream/none", "upstream/tls_version", "source", "source/none", "destination",
    "destination/none", "metadata", "metadata/filter_metadata", "metadata/none",
    "metadata/filter_metadata/x", "filter_state", "filter_state/x", "upstream_filter_state",
    "upstream_filter_state/x", "xds", "xds/node/id", "xds/node/cluster", "xds/node/none",
    "xds/node/metadata", "xds/node/locality", "xds/node/locality/region", "xds/node/user_agent_name",
    "xds/node/id/x", "xds/cluster_name", "xds/cluster_metadata", "xds/route_name",
    "xds/route_metadata", "xds/virtual_host_name", "xds/virtual_host_metadata",
    "xds/upstream_host_metadata", "xds/filter_chain_name", "xds/listener_direction",
    "xds/listener_metadata", "xds/none", "node", "node/id", "listener_direction", "cluster_name",
    "route_name", "listener_metadata", "probe_state", "request/time/x", "request/id/x",
};

static void properties(void) {
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    char path[80];
    size_t size = strlen(paths[i]);
    for (size_t j = 0; j < size; j++) path[j] = paths[i][j] == '/' ? 0 : paths[i][j];
    char *bytes = NULL;
    size_t taken = 0;
    begin("property ");
    put(paths[i]);
    put(" = ");
    uint32_t status = proxy_get_property(path, size, &bytes, &taken);
    put_number(status);
    if (status == STATUS_OK) {
      put(" [");
      put_number((int64_t)taken);
      put("] ");
      put_bytes(bytes, taken);
      free(bytes);
    }
    end();
  }
  /* Only whether these are there: their values differ from run to run. */
  static const char *const varying[] = {
      "request/id", "request/time", "request/duration", "request/total_size", "request/headers",
      "request/headers_bytes", "response/headers", "response/trailers", "response/headers_bytes",
      "response/size", "response/total_size", "response/backend_latency", "connection_id",
      "connection/id", "source/address", "source/port", "destination/address", "destination/port",
      "upstream/address", "upstream/port", "upstream/local_address", "upstream/num_endpoints",
      "upstream/cx_pool_ready_duration", "xds/node", "xds/upstream_host_locality_metadata",
  };
  for (size_t i = 0; i < sizeof varying / sizeof *varying; i++) {
    char path[80];
    size_t size = strlen(varying[i]);
    for (size_t j = 0; j < size; j++) path[j] = varying[i][j] == '/' ? 0 : varying[i][j];
    char *bytes = NULL;
    size_t taken = 0;
    begin("property ");
    put(varying[i]);
    put(" = ");
    uint32_t status = proxy_get_property(path, size, &bytes, &taken);
    put_number(status);
    if (status == STATUS_OK) put(taken == 8 ? " word" : taken == 4 ? " empty map" : " text");
    free(bytes);
    end();
  }
}

static void state(void) {
  char *bytes = NULL;
  size_t size = 0;
  code("set probe_state", proxy_set_property("probe_state", 11, "kept", 4));
  uint32_t status = proxy_get_property("probe_state", 11, &bytes, &size);
  value("get probe_state", status, bytes, size);
  code("set plugin_name", proxy_set_property("plugin_name", 11, "kept", 4));
  code("set empty path", proxy_set_property("", 0, "kept", 4));
  code("set bad pointer", proxy_set_property((char *)0xfffffff0u, 11, "kept", 4));
}

static void metrics(void) {
  uint32_t id[3] = {0, 0, 0}, again = 0;
  static const char *const names[] = {"probe_counter", "probe_gauge", "probe_histogram"};
  for (uint32_t kind = 0; kind < 3; kind++) {
    uint32_t status = proxy_define_metric(kind, names[kind], strlen(names[kind]), &id[kind]);
    begin(join("define", kind));
    put(" = ");
    put_number(status);
    put(" class ");
    put_number(id[kind] & 3);
    end();
    uint64_t number = 0;
    code(join("increment 5", kind), proxy_increment_metric(id[kind], 5));
    code(join("increment 0", kind), proxy_increment_metric(id[kind], 0));
    code(join("increment -2", kind), proxy_increment_metric(id[kind], -2));
    code(join("record 9", kind), proxy_record_metric(id[kind], 9));
    status = proxy_get_metric(id[kind], &number);
    code(join("get metric", kind), status);
    status = proxy_define_metric(kind, names[kind], strlen(names[kind]), &again);
    begin(join("define again", kind));
    put(" = ");
    put_number(status);
    put(" later by ");
    put_number((int64_t)again - (int64_t)id[kind]);
    end();
  }
  uint64_t number = 0;
  code("define 3", proxy_define_metric(3, "x", 1, &again));
  code("define bad cell", proxy_define_metric(0, "probe_cell", 10, (uint32_t *)0xfffffff0u));
  for (uint32_t unknown = 40000; unknown < 40004; unknown++) {
    code(join("increment unknown", unknown & 3), proxy_increment_metric(unknown, 1));
    code(join("increment unknown -1", unknown & 3), proxy_increment_metric(unknown, -1));
    code(join("record unknown", unknown & 3), proxy_record_metric(unknown, 1));
    code(join("get unknown", unknown & 3), proxy_get_metric(unknown, &number));
  }
}

static void shared(void) {
  char *bytes = NULL;
  size_t size = 0;
  uint32_t cas = 0, first = 0, token = 0;
  code("shared get absent", proxy_get_shared_data("absent", 6, &bytes, &size, &cas));
  code("shared set", proxy_set_shared_data("probe", 5, "one", 3, 0));
  uint32_t status = proxy_get_shared_data("probe", 5, &bytes, &size, &first);
  value("shared get", status, bytes, size);
  code("shared set stale", proxy_set_shared_data("probe", 5, "two", 3, first + 1000000));
  code("shared set fresh", proxy_set_shared_data("probe", 5, "", 0, first));
  status = proxy_get_shared_data("probe", 5, &bytes, &size, &cas);
  value("shared get", status, bytes, size);
  code("shared cas changed", cas != first && cas != 0);
  code("shared set used", proxy_set_shared_data("probe", 5, "x", 1, first));
  code("shared empty key", proxy_set_shared_data("", 0, "x", 1, 0));
  code("shared bad pointer", proxy_set_shared_data((char *)0xfffffff0u, 5, "x", 1, 0));
  code("queue register", proxy_register_shared_queue("probe_queue", 11, &token));
  uint32_t resolved = 0;
  code("queue resolve", proxy_resolve_shared_queue("", 0, "probe_queue", 11, &resolved));
  code("queue same", token == resolved && token != 0);
  code("queue resolve absent", proxy_resolve_shared_queue("", 0, "absent", 6, &resolved));
  code("queue resolve other vm", proxy_resolve_shared_queue("other", 5, "probe_queue", 11, &resolved));
  code("queue dequeue empty", proxy_dequeue_shared_queue(token, &bytes, &size));
  code("queue dequeue unknown", proxy_dequeue_shared_queue(9999, &bytes, &size));
  code("queue enqueue unknown", proxy_enqueue_shared_queue(9999, "x", 1));
}

static void calls(void) {
  char *bytes = NULL;
  size_t size = 77;
  uint32_t token = 77, number = 77;
  code("call unknown cluster",
       proxy_http_call("nowhere", 7, "", 0, "", 0, "", 0, 1000, &token));
  code("call token", token);
  code("call bad pointer",
       proxy_http_call((char *)0xfffffff0u, 7, "", 0, "", 0, "", 0, 1000, &token));
  code("call bad token cell",
       proxy_http_call("nowhere", 7, "", 0, "", 0, "", 0, 1000, (uint32_t *)0xfffffffeu));
  code("grpc unknown cluster", proxy_grpc_call("nowhere", 7, "s", 1, "m", 1, "", 0, "", 0, 1000, &token));
  for (uint32_t class = 0; class < 4; class++) {
    code(join("grpc send", class), proxy_grpc_send(4000 + class, "x", 1, 0));
    code(join("grpc cancel", class), proxy_grpc_cancel(4000 + class));
    code(join("grpc close", class), proxy_grpc_close(4000 + class));
  }
  code("foreign unknown", proxy_call_foreign_function("nothing", 7, "", 0, &bytes, &size));
  code("foreign cell", (uint32_t)size);
  code("foreign bad name", proxy_call_foreign_function((char *)0xfffffff0u, 7, "", 0, &bytes, &size));
  code("status", proxy_get_status(&number, &bytes, &size));
  code("status code", number);
  code("status size", (uint32_t)size);
}

static void control(uint32_t context) {
  uint32_t number = 77;
  uint64_t time = 0;
  for (uint32_t stream = 2; stream <= 5; stream++) {
    code(join("continue", stream), proxy_continue_stream(stream));
  }
  code("close 4", proxy_close_stream(4));
  code("log 6", proxy_log(6, "x", 1));
  code("log 6 bad pointer", proxy_log(6, (char *)0xfffffff0u, 100));
  code("log bad pointer", proxy_log(LOG_INFO, (char *)0xfffffff0u, 100));
  code("log wrapped pointer", proxy_log(LOG_INFO, (char *)0xfffffff0u, 16));
  code("log nothing", proxy_log(LOG_TRACE, "", 0));
  code("log level", proxy_get_log_level(&number));
  code("log level bad cell", proxy_get_log_level((uint32_t *)0xfffffffeu));
  code("time", proxy_get_current_time_nanoseconds(&time));
  code("time is recent", time > 1600000000000000000ull);
  code("time bad cell", proxy_get_current_time_nanoseconds((uint64_t *)0xfffffffau));
  code("tick 0", proxy_set_tick_period_milliseconds(0));
  code("done", proxy_done());
  code("effective unknown", proxy_set_effective_context(60000));
  code("effective 0", proxy_set_effective_context(0));
  code("effective root", proxy_set_effective_context(1));
  char *bytes = NULL;
  size_t size = 0;
  uint32_t status = proxy_get_property("request\0method", 14, &bytes, &size);
  value("method on root", status, bytes, size);
  code("effective own", proxy_set_effective_context(context));
}

static void everything(const char *where, uint32_t context) {
  phase = where;
  maps();
  buffers();
  properties();
  state();
  metrics();
  shared();
  calls();
  control(context);
}

/* Another probe may have its own callbacks, and call everything from them. */
#ifndef PROBE_WITHOUT_CALLBACKS

PROXY_WASM_EXPORT(proxy_on_context_create)
void proxy_on_context_create(uint32_t context, uint32_t parent) {
  everything(parent ? "stream_create" : "root_create", context);
}

PROXY_WASM_EXPORT(proxy_on_vm_start)
uint32_t proxy_on_vm_start(uint32_t context, size_t size) {
  (void)size;
  everything("vm_start", context);
  return 1;
}

PROXY_WASM_EXPORT(proxy_on_configure)
uint32_t proxy_on_configure(uint32_t context, size_t size) {
  (void)size;
  everything("configure", context);
  phase = "configure";
  change_maps();
  return 1;
}

#define CALLBACK(name, where, ...)                 \
  PROXY_WASM_EXPORT(name)                          \
  uint32_t name(uint32_t context, ##__VA_ARGS__) { \
    everything(where, context);                    \
    phase = where;                                 \
    change_maps();                                 \
    return ACTION_CONTINUE;                        \
  }

CALLBACK(proxy_on_request_headers, "request_headers", uint32_t count, uint32_t end_of_stream)
CALLBACK(proxy_on_request_body, "request_body", uint32_t size, uint32_t end_of_stream)
CALLBACK(proxy_on_request_trailers, "request_trailers", uint32_t count)
CALLBACK(proxy_on_response_headers, "response_headers", uint32_t count, uint32_t end_of_stream)
CALLBACK(proxy_on_response_body, "response_body", uint32_t size, uint32_t end_of_stream)
CALLBACK(proxy_on_response_trailers, "response_trailers", uint32_t count)

PROXY_WASM_EXPORT(proxy_on_log)
void proxy_on_log(uint32_t context) {
  everything("log", context);
  phase = "log";
  change_maps();
}

PROXY_WASM_EXPORT(proxy_on_done)
uint32_t proxy_on_done(uint32_t context) {
  everything("done", context);
  return 1;
}

PROXY_WASM_EXPORT(proxy_on_delete)
void proxy_on_delete(uint32_t context) { everything("delete", context); }

#endif
