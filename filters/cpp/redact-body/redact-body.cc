// redact-body: hides a word in text responses.
// The plugin configuration is the word; without one it is `secret`. Every
// occurrence in a body of type text/* or application/json becomes asterisks.
// It holds the body back until it is complete, since a word can lie across two
// frames. Other bodies pass. It behaves the same under any root_id.

#include "proxy_wasm.h"

#include <set>
#include <string>
#include <string_view>

PROXY_WASM_MODULE

namespace {

constexpr std::string_view default_word = "secret";

std::string word;

// The streams whose response body is to be redacted.
std::set<uint32_t> &redacted() {
  static std::set<uint32_t> contexts;
  return contexts;
}

void log(proxy_log_level level, std::string_view message) {
  proxy_log(level, message.data(), message.size());
}

// Takes over bytes that the host allocated in this module.
std::string take(char *bytes, size_t size) {
  if (bytes == nullptr) return {};
  std::string result(bytes, size);
  free(bytes);
  return result;
}

std::string response_header(std::string_view name) {
  char *value = nullptr;
  size_t size = 0;
  if (proxy_get_header_map_value(MAP_RESPONSE_HEADERS, name.data(), name.size(), &value, &size) !=
      STATUS_OK) {
    return {};
  }
  return take(value, size);
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  auto first = text.find_first_not_of(blanks);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// Redacts the body that was held back.
void redact() {
  char *bytes = nullptr;
  size_t size = 0;
  if (proxy_get_buffer_bytes(BUFFER_RESPONSE_BODY, 0, SIZE_MAX, &bytes, &size) != STATUS_OK) return;
  std::string body = take(bytes, size);
  // As many asterisks as letters: the content-length stays right.
  const std::string stars(word.size(), '*');
  size_t hits = 0;
  for (size_t at = body.find(word); at != body.npos; at = body.find(word, at + word.size())) {
    body.replace(at, word.size(), stars);
    hits++;
  }
  if (hits == 0) return;
  proxy_set_buffer_bytes(BUFFER_RESPONSE_BODY, 0, size, body.data(), body.size());
  log(LOG_INFO, "redacted " + std::to_string(hits) + " times");
}

}  // namespace

PROXY_WASM_EXPORT(proxy_on_configure)
uint32_t on_configure(uint32_t, size_t configuration_size) {
  word = default_word;
  if (configuration_size > 0) {
    char *bytes = nullptr;
    size_t size = 0;
    if (proxy_get_buffer_bytes(BUFFER_PLUGIN_CONFIGURATION, 0, configuration_size, &bytes, &size) !=
        STATUS_OK) {
      return false;
    }
    std::string text = take(bytes, size);
    if (!trim(text).empty()) word = trim(text);
  }
  log(LOG_INFO, "redacting a word of " + std::to_string(word.size()) + " bytes");
  return true;
}

PROXY_WASM_EXPORT(proxy_on_response_headers)
uint32_t on_response_headers(uint32_t context, uint32_t, uint32_t end_of_stream) {
  std::string type = response_header("content-type");
  if (!end_of_stream && (type.starts_with("text/") || type.starts_with("application/json"))) {
    redacted().insert(context);
  }
  return ACTION_CONTINUE;
}

PROXY_WASM_EXPORT(proxy_on_response_body)
uint32_t on_response_body(uint32_t context, uint32_t, uint32_t end_of_stream) {
  if (!redacted().contains(context)) return ACTION_CONTINUE;
  if (!end_of_stream) return ACTION_PAUSE;
  redact();
  return ACTION_CONTINUE;
}

// With trailers, no frame of the body is the last one.
PROXY_WASM_EXPORT(proxy_on_response_trailers)
uint32_t on_response_trailers(uint32_t context, uint32_t) {
  if (redacted().contains(context)) redact();
  return ACTION_CONTINUE;
}

PROXY_WASM_EXPORT(proxy_on_delete)
void on_delete(uint32_t context) { redacted().erase(context); }
