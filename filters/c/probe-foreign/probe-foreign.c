/* probe-foreign: calls the foreign functions that its plugin configuration lists, each on a line with
 * its argument in hexadecimal digits, and logs the result and what was given back. A ruler, not a
 * filter to deploy. */

#include "../line.h"

/* Callbacks have parameters that nothing here needs. */
#pragma clang diagnostic ignored "-Wunused-parameter"

PROXY_WASM_MODULE

PROXY_WASM_IMPORT(proxy_call_foreign_function)
uint32_t proxy_call_foreign_function(const char *name, size_t name_size, const char *argument,
                                     size_t argument_size, char **result, size_t *result_size);

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static void call(const char *name, size_t name_size, const char *hex, size_t digits) {
  static char argument[8192];
  size_t size = 0;
  for (size_t i = 0; i + 1 < digits && size < sizeof argument; i += 2)
    argument[size++] = (char)(digit(hex[i]) * 16 + digit(hex[i + 1]));
  char *result = NULL;
  size_t result_size = 0;
  uint32_t status =
      proxy_call_foreign_function(name, name_size, argument, size, &result, &result_size);
  put_bytes(name, name_size);
  field("status", status);
  field("size", (uint32_t)result_size);
  put(" ");
  put_bytes(result, result_size);
  proxy_log(LOG_WARN, line, length);
  length = 0;
}

PROXY_WASM_EXPORT(proxy_on_configure) uint32_t on_configure(uint32_t id, uint32_t size) {
  char *text = NULL;
  size_t left = 0;
  proxy_get_buffer_bytes(BUFFER_PLUGIN_CONFIGURATION, 0, size, &text, &left);
  while (left) {
    const char *end = memchr(text, '\n', left);
    size_t row = end ? (size_t)(end - text) : left;
    const char *space = memchr(text, ' ', row);
    size_t name = space ? (size_t)(space - text) : row;
    size_t digits = space ? row - name - 1 : 0;
    call(text, name, text + name + 1, digits);
    size_t taken = end ? row + 1 : row;
    text += taken;
    left -= taken;
  }
  return 1;
}
