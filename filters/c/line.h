/* A line for the log, put together bit by bit. What is not printable is escaped. */
#ifndef FILTERGATE_LINE_H
#define FILTERGATE_LINE_H

#include "proxy_wasm.h"

#include <string.h>

/* Not every filter needs all of it. */
#define UNUSED __attribute__((unused))

static char line[16384];
static size_t length;

UNUSED static void put_bytes(const char *bytes, size_t size) {
  for (size_t i = 0; i < size && length < sizeof line - 8; i++) {
    unsigned char c = (unsigned char)bytes[i];
    if (c >= ' ' && c < 127 && c != '\\') {
      line[length++] = (char)c;
    } else {
      line[length++] = '\\';
      line[length++] = "0123456789abcdef"[c >> 4];
      line[length++] = "0123456789abcdef"[c & 15];
    }
  }
}

UNUSED static void put(const char *text) { put_bytes(text, strlen(text)); }

UNUSED static void put_number(int64_t number) {
  char digits[24];
  size_t at = sizeof digits;
  uint64_t rest = number < 0 ? (uint64_t)-number : (uint64_t)number;
  do digits[--at] = (char)('0' + rest % 10);
  while (rest /= 10);
  if (number < 0) digits[--at] = '-';
  put_bytes(digits + at, sizeof digits - at);
}

UNUSED static void field(const char *name, uint32_t number) {
  put(" ");
  put(name);
  put("=");
  put_number(number);
}

UNUSED static void say(void) {
  proxy_log(LOG_WARN, line, length);
  length = 0;
}

#endif
