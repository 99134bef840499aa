/* limit-body: refuses requests whose body is larger than a limit, with a 413.
 * The plugin configuration is the limit in bytes as a decimal number; without one
 * it is 1024. Anything else is logged as an error and on_configure fails.
 * It refuses by content-length before the body arrives, and else as soon as what
 * has arrived is too much. It behaves the same under any root_id. */

#include "proxy_wasm.h"

#include <stdbool.h>
#include <string.h>

enum { DEFAULT_LIMIT = 1024, MAX_STREAMS = 256 };

PROXY_WASM_MODULE

static uint64_t limit = DEFAULT_LIMIT;

/* What has arrived of each stream that is under way. Streams come and go quickly
 * and a worker has few at once; one more than fits is not counted, but is still
 * refused by its content-length. */
static struct stream {
  uint32_t context; /* 0 in a free place: the ids of streams start above it. */
  uint64_t arrived;
} streams[MAX_STREAMS];

static struct stream *find(uint32_t context) {
  for (size_t i = 0; i < MAX_STREAMS; i++) {
    if (streams[i].context == context) return &streams[i];
  }
  return NULL;
}

/* Reads a decimal number with nothing but blanks around it. */
static bool parse_number(const char *text, size_t size, uint64_t *number) {
  size_t i = 0;
  while (i < size && strchr(" \t\r\n", text[i])) i++;
  size_t first = i;
  *number = 0;
  for (; i < size && text[i] >= '0' && text[i] <= '9'; i++) {
    if (*number > (UINT64_MAX - 9) / 10) return false;
    *number = *number * 10 + (uint64_t)(text[i] - '0');
  }
  if (i == first) return false;
  while (i < size && strchr(" \t\r\n", text[i])) i++;
  return i == size;
}

static uint32_t refuse(void) {
  static const char details[] = "limit_body";
  static const char body[] = "limit-body: request body too large\n";
  proxy_send_local_response(413, details, sizeof details - 1, body, sizeof body - 1, NULL, 0, -1);
  return ACTION_PAUSE;
}

PROXY_WASM_EXPORT(proxy_on_context_create)
void on_context_create(uint32_t context, uint32_t root) {
  if (root == 0) return; /* It is a root itself. */
  struct stream *place = find(0);
  if (place != NULL) *place = (struct stream){.context = context};
}

PROXY_WASM_EXPORT(proxy_on_delete)
void on_delete(uint32_t context) {
  struct stream *stream = find(context);
  if (stream != NULL) stream->context = 0;
}

PROXY_WASM_EXPORT(proxy_on_configure)
uint32_t on_configure(uint32_t context, size_t configuration_size) {
  (void)context;
  limit = DEFAULT_LIMIT;
  if (configuration_size == 0) return true;
  char *text = NULL;
  size_t size = 0;
  if (proxy_get_buffer_bytes(BUFFER_PLUGIN_CONFIGURATION, 0, configuration_size, &text, &size) !=
      STATUS_OK) {
    return false;
  }
  bool valid = parse_number(text, size, &limit);
  free(text);
  if (!valid) {
    static const char message[] = "invalid configuration: want a number of bytes";
    proxy_log(LOG_ERROR, message, sizeof message - 1);
  }
  return valid;
}

PROXY_WASM_EXPORT(proxy_on_request_headers)
uint32_t on_request_headers(uint32_t context, uint32_t count, uint32_t end_of_stream) {
  (void)context, (void)count, (void)end_of_stream;
  static const char name[] = "content-length";
  char *value = NULL;
  size_t size = 0;
  if (proxy_get_header_map_value(MAP_REQUEST_HEADERS, name, sizeof name - 1, &value, &size) !=
      STATUS_OK) {
    return ACTION_CONTINUE;
  }
  uint64_t length;
  bool too_large = parse_number(value, size, &length) && length > limit;
  free(value);
  return too_large ? refuse() : ACTION_CONTINUE;
}

PROXY_WASM_EXPORT(proxy_on_request_body)
uint32_t on_request_body(uint32_t context, uint32_t size, uint32_t end_of_stream) {
  (void)end_of_stream;
  struct stream *stream = find(context);
  if (stream == NULL) return ACTION_CONTINUE;
  stream->arrived += size;
  return stream->arrived > limit ? refuse() : ACTION_CONTINUE;
}
