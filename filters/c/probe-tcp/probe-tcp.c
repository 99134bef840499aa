/* probe-tcp: the probe as a network filter. With the plugin configuration `all PHASE` it calls
 * the host's functions in the phases of a connection that begin with that; otherwise it does what the last two
 * bytes of the data ask for, `!` for data of the client and `?` for data of the upstream,
 * so that a connection's script decides. It is a ruler, not a filter to deploy. */

#define PROBE_WITHOUT_CALLBACKS
#include "../probe/probe.c"

#define DOWNSTREAM 2
#define UPSTREAM 3

/* Whether the plugin configuration begins with this word. It can be read only while the
 * root is configured. */
static char words[64];
static size_t words_size;

static int configured(const char *word) {
  size_t size = strlen(word);
  return words_size >= size && memcmp(words, word, size) == 0;
}

/* What a tick does: to which stream, and what. */
static uint32_t waiting;
static char then;

static uint32_t wait(uint32_t context, char what) {
  waiting = context;
  then = what;
  code("tick", proxy_set_tick_period_milliseconds(20));
  return 1;
}

static uint32_t command(uint32_t context, uint32_t buffer, char what) {
  switch (what) {
  case 'h': return 1; /* hold */
  case 'H': return 7; /* hold, by a result that has no name */
  case 'r': code("continue downstream", proxy_continue_stream(DOWNSTREAM)); return 0;
  case 'R': code("continue downstream", proxy_continue_stream(DOWNSTREAM)); return 1;
  case 'u': code("continue upstream", proxy_continue_stream(UPSTREAM)); return 0;
  case 'c': code("close downstream", proxy_close_stream(DOWNSTREAM)); return 0;
  case 'C': code("close downstream", proxy_close_stream(DOWNSTREAM)); return 1;
  case 'k': code("close upstream", proxy_close_stream(UPSTREAM)); return 0;
  case 'q': code("close request", proxy_close_stream(0)); return 0;
  case 'Q': code("close response", proxy_close_stream(1)); return 0;
  case 'l':
    code("local response", proxy_send_local_response(403, "", 0, "no", 2, "", 0, -1));
    return 0;
  case 's': code("set", proxy_set_buffer_bytes(buffer, 0, 1000, "SET", 3)); return 0;
  case 'p': code("prepend", proxy_set_buffer_bytes(buffer, 0, 0, "PRE", 3)); return 0;
  case 'a': code("append", proxy_set_buffer_bytes(buffer, 1000, 0, "APP", 3)); return 0;
  case 'm': code("middle", proxy_set_buffer_bytes(buffer, 1, 1, "MID", 3)); return 0;
  case 'd': code("drain", proxy_set_buffer_bytes(buffer, 0, 1000, "", 0)); return 0;
  case 'D': code("drain", proxy_set_buffer_bytes(buffer, 0, 1000, "", 0)); return 1;
  case 'o': code("set other", proxy_set_buffer_bytes(5 - buffer, 0, 0, "OTHER", 5)); return 0;
  case 'w': return wait(context, 'r');     /* a tick resumes */
  case 'W': return wait(context, 'c');     /* a tick closes */
  case 'e': wait(context, 'c'); return 0;  /* a tick closes, nothing is held */
  case 't': __builtin_trap();
  default: return 0;
  }
}

static void show(const char *what, uint32_t size, uint32_t end_of_stream) {
  begin(what);
  put_number(size);
  put(" ");
  put_number(end_of_stream);
  end();
}

static void look(uint32_t buffer) {
  char *bytes = NULL;
  size_t size = 0;
  uint32_t status = proxy_get_buffer_bytes(buffer, 0, 4096, &bytes, &size);
  value(join("buffer", buffer), status, bytes, size);
}

static uint32_t data(uint32_t context, uint32_t buffer, char mark, uint32_t size, uint32_t end_of_stream) {
  show("data ", size, end_of_stream);
  char *bytes = NULL;
  size_t taken = 0;
  uint32_t status = proxy_get_buffer_bytes(buffer, 0, 4096, &bytes, &taken);
  char what = 0;
  if (status == STATUS_OK && taken >= 2 && bytes[taken - 2] == mark) what = bytes[taken - 1];
  value(join("buffer", buffer), status, bytes, taken);
  look(5 - buffer);
  return command(context, buffer, what);
}

/* The probe's own root is the first plugin of its VM, so that its id is 1. */
static int all(uint32_t context) {
  if (!configured("all ")) return 0;
  size_t size = words_size - 4;
  if (strlen(phase) >= size && memcmp(phase, words + 4, size) == 0) {
    const char *where = phase;
    everything(where, context);
    phase = where;
    change_maps();
  }
  return 1;
}

PROXY_WASM_EXPORT(proxy_on_new_connection)
uint32_t proxy_on_new_connection(uint32_t context) {
  phase = "new_connection";
  if (all(context)) return 0;
  show("called ", 0, 0);
  look(DOWNSTREAM);
  return words_size == 5 && configured("new!") ? command(context, DOWNSTREAM, words[4]) : 0;
}

PROXY_WASM_EXPORT(proxy_on_downstream_data)
uint32_t proxy_on_downstream_data(uint32_t context, uint32_t size, uint32_t end_of_stream) {
  phase = "downstream_data";
  if (all(context)) return 0;
  return data(context, DOWNSTREAM, '!', size, end_of_stream);
}

PROXY_WASM_EXPORT(proxy_on_upstream_data)
uint32_t proxy_on_upstream_data(uint32_t context, uint32_t size, uint32_t end_of_stream) {
  phase = "upstream_data";
  if (all(context)) return 0;
  return data(context, UPSTREAM, '?', size, end_of_stream);
}

PROXY_WASM_EXPORT(proxy_on_downstream_connection_close)
void proxy_on_downstream_connection_close(uint32_t context, uint32_t peer) {
  phase = "downstream_close";
  if (all(context)) return;
  show("closed ", peer, 0);
  look(DOWNSTREAM);
  if (configured("close!")) command(context, DOWNSTREAM, words[6]);
}

PROXY_WASM_EXPORT(proxy_on_upstream_connection_close)
void proxy_on_upstream_connection_close(uint32_t context, uint32_t peer) {
  phase = "upstream_close";
  if (all(context)) return;
  show("closed ", peer, 0);
  look(UPSTREAM);
  if (configured("close?")) command(context, UPSTREAM, words[6]);
}

PROXY_WASM_EXPORT(proxy_on_tick)
void proxy_on_tick(uint32_t root) {
  phase = "tick";
  proxy_set_tick_period_milliseconds(0);
  code("effective", proxy_set_effective_context(waiting));
  look(DOWNSTREAM);
  command(waiting, DOWNSTREAM, then);
}

PROXY_WASM_EXPORT(proxy_on_context_create)
void proxy_on_context_create(uint32_t context, uint32_t parent) {
  phase = parent ? "stream_create" : "root_create";
  if (!parent || !all(context)) show("context ", context, parent);
}

PROXY_WASM_EXPORT(proxy_on_vm_start)
uint32_t proxy_on_vm_start(uint32_t context, size_t size) { return 1; }

PROXY_WASM_EXPORT(proxy_on_configure)
uint32_t proxy_on_configure(uint32_t context, size_t size) {
  char *bytes = NULL;
  if (proxy_get_buffer_bytes(7, 0, sizeof words, &bytes, &words_size) == STATUS_OK) {
    memcpy(words, bytes, words_size);
  }
  return 1;
}

PROXY_WASM_EXPORT(proxy_on_log)
void proxy_on_log(uint32_t context) {
  phase = "log";
  if (!all(context)) show("called ", 0, 0);
}

PROXY_WASM_EXPORT(proxy_on_done)
uint32_t proxy_on_done(uint32_t context) {
  phase = "done";
  if (!all(context)) show("called ", 0, 0);
  return 1;
}

PROXY_WASM_EXPORT(proxy_on_delete)
void proxy_on_delete(uint32_t context) {
  phase = "delete";
  if (!all(context)) show("called ", 0, 0);
}
