/* A line for the log, put together bit by bit. What is not printable is escaped. */
#ifndef FILTERGATE_LINE_H
#define FILTERGATE_LINE_H

#include "proxy_wasm.h"

#include <string.h>

static char line[16384];
static size_t length;

static void put_bytes(const char *bytes, size_t size) {
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

static void put(const char *text) { put_bytes(text, strlen(text)); }

static void put_number(uint32_t number) {
  char digits[12];
  size_t at = sizeof digits;
  do digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  put_bytes(digits + at, sizeof digits - at);
}

static void field(const char *name, uint32_t number) {
  put(" ");
  put(name);
  put("=");
  put_number(number);
}

static void say(void) {
  proxy_log(LOG_WARN, line, length);
  length = 0;
}

#endif
