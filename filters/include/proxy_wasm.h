/* The Proxy-Wasm ABI 0.2.1, as far as the C and C++ filters of this folder use it.
 *
 * Imports are declared with their names and types as a host links them; a filter
 * defines the callbacks that it wants with PROXY_WASM_EXPORT. PROXY_WASM_MODULE
 * adds what every module needs: the ABI marker and an allocator. The SDKs of both
 * languages have much more; this is what is left without one.
 */
#ifndef FILTERGATE_PROXY_WASM_H
#define FILTERGATE_PROXY_WASM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef __cplusplus
#define PROXY_WASM_C extern "C"
#else
#define PROXY_WASM_C extern
#endif

#define PROXY_WASM_IMPORT(name) \
  PROXY_WASM_C __attribute__((import_module("env"), import_name(#name)))
#define PROXY_WASM_EXPORT(name) PROXY_WASM_C __attribute__((export_name(#name)))

enum proxy_log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL };

enum proxy_status {
  STATUS_OK = 0,
  STATUS_NOT_FOUND = 1,
  STATUS_BAD_ARGUMENT = 2,
  STATUS_INTERNAL_FAILURE = 10,
};

/* What a callback tells the host to do with the stream. */
enum proxy_action { ACTION_CONTINUE = 0, ACTION_PAUSE = 1 };

enum proxy_map_type {
  MAP_REQUEST_HEADERS = 0,
  MAP_REQUEST_TRAILERS = 1,
  MAP_RESPONSE_HEADERS = 2,
  MAP_RESPONSE_TRAILERS = 3,
};

enum proxy_buffer_type {
  BUFFER_REQUEST_BODY = 0,
  BUFFER_RESPONSE_BODY = 1,
  BUFFER_PLUGIN_CONFIGURATION = 7,
};

/* Every host function gives a proxy_status. Bytes that it hands out were allocated
 * with the module's own allocator: the caller frees them. */

PROXY_WASM_IMPORT(proxy_log)
uint32_t proxy_log(uint32_t level, const char *message, size_t size);

PROXY_WASM_IMPORT(proxy_get_header_map_value)
uint32_t proxy_get_header_map_value(uint32_t map, const char *key, size_t key_size, char **value,
                                    size_t *value_size);

PROXY_WASM_IMPORT(proxy_replace_header_map_value)
uint32_t proxy_replace_header_map_value(uint32_t map, const char *key, size_t key_size,
                                        const char *value, size_t value_size);

PROXY_WASM_IMPORT(proxy_remove_header_map_value)
uint32_t proxy_remove_header_map_value(uint32_t map, const char *key, size_t key_size);

PROXY_WASM_IMPORT(proxy_get_buffer_bytes)
uint32_t proxy_get_buffer_bytes(uint32_t buffer, size_t start, size_t length, char **bytes,
                                size_t *size);

PROXY_WASM_IMPORT(proxy_set_buffer_bytes)
uint32_t proxy_set_buffer_bytes(uint32_t buffer, size_t start, size_t length, const char *bytes,
                                size_t size);

/* `headers` is a serialized header list; NULL with size 0 is none.
 * A `grpc_status` of -1 is none. */
PROXY_WASM_IMPORT(proxy_send_local_response)
uint32_t proxy_send_local_response(uint32_t status, const char *details, size_t details_size,
                                   const char *body, size_t body_size, const char *headers,
                                   size_t headers_size, int32_t grpc_status);

#define PROXY_WASM_MODULE                                                                    \
  PROXY_WASM_EXPORT(proxy_abi_version_0_2_1) void proxy_wasm_abi_version(void) {}            \
  PROXY_WASM_EXPORT(proxy_on_memory_allocate) void *proxy_wasm_on_memory_allocate(size_t size) { \
    return malloc(size);                                                                     \
  }

#endif
