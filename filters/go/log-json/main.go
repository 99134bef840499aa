// log-json: logs every request as one line of JSON when its stream ends.
// It notes the method, path and authority of the request and the status of the
// response, and logs them at level info from proxy_on_log. Written without an
// SDK, by //go:wasmimport and //go:wasmexport, for ABI 0.2.1.
// It takes no configuration and behaves the same under any root_id.

package main

import (
	"unicode/utf8"
	"unsafe"
)

const (
	levelInfo = 2

	mapRequestHeaders  = 0
	mapResponseHeaders = 2

	statusOk = 0

	actionContinue = 0
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, message unsafe.Pointer, size uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeaderMapValue(headerMap uint32, key unsafe.Pointer, keySize uint32, value, valueSize unsafe.Pointer) uint32

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

// Blocks that the host was given to write to, by address. They stay here so that
// the collector leaves them alone, until take picks them up.
var blocks = map[uintptr][]byte{}

//go:wasmexport proxy_on_memory_allocate
func onMemoryAllocate(size uint32) unsafe.Pointer {
	block := make([]byte, max(size, 1))
	pointer := unsafe.Pointer(&block[0])
	blocks[uintptr(pointer)] = block
	return pointer
}

func take(pointer uintptr, size uint32) string {
	block := blocks[pointer]
	delete(blocks, pointer)
	return string(block[:min(int(size), len(block))])
}

func header(headerMap uint32, name string) string {
	var pointer, size uint32
	if proxyGetHeaderMapValue(headerMap, unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)),
		unsafe.Pointer(&pointer), unsafe.Pointer(&size)) != statusOk {
		return ""
	}
	return take(uintptr(pointer), size)
}

func logInfo(message string) {
	proxyLog(levelInfo, unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

type entry struct {
	method, path, authority, status string
}

// As a line of JSON. Package encoding/json would more than double the module.
func (e *entry) line() string {
	line := append([]byte(nil), `{"method":`...)
	line = appendQuoted(line, e.method)
	line = append(line, `,"path":`...)
	line = appendQuoted(line, e.path)
	line = append(line, `,"authority":`...)
	line = appendQuoted(line, e.authority)
	line = append(line, `,"status":`...)
	line = appendQuoted(line, e.status)
	return string(append(line, '}'))
}

func appendQuoted(line []byte, text string) []byte {
	const hex = "0123456789abcdef"
	line = append(line, '"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			line = append(line, '\\', byte(r))
		case r < ' ':
			line = append(line, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			// What is not UTF-8 comes as the replacement character.
			line = utf8.AppendRune(line, r)
		}
	}
	return append(line, '"')
}

// The streams under way, by context id.
var entries = map[uint32]*entry{}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(context, count, endOfStream uint32) uint32 {
	entries[context] = &entry{
		method:    header(mapRequestHeaders, ":method"),
		path:      header(mapRequestHeaders, ":path"),
		authority: header(mapRequestHeaders, ":authority"),
	}
	return actionContinue
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(context, count, endOfStream uint32) uint32 {
	if noted := entries[context]; noted != nil {
		noted.status = header(mapResponseHeaders, ":status")
	}
	return actionContinue
}

//go:wasmexport proxy_on_log
func onLog(context uint32) {
	if noted := entries[context]; noted != nil {
		logInfo(noted.line())
	}
}

//go:wasmexport proxy_on_delete
func onDelete(context uint32) {
	delete(entries, context)
}

// A reactor has no use for it, but the package needs one.
func main() {}
