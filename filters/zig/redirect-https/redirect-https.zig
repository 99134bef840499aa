// redirect-https: sends plain HTTP requests to the same place over HTTPS.
// A request whose `x-forwarded-proto` (or else `:scheme`) is `http` is answered
// 308 with a `location`; every other one passes. Written without an SDK and
// without a libc, for ABI 0.2.1.
// It takes no configuration and behaves the same under any root_id.

const std = @import("std");

const Status = enum(u32) { ok = 0, _ };
const Action = enum(u32) { @"continue" = 0, pause = 1 };
const Map = enum(u32) { request_headers = 0 };
const Level = enum(u32) { warn = 3 };

extern "env" fn proxy_log(level: Level, message: [*]const u8, size: usize) Status;
extern "env" fn proxy_get_header_map_value(map: Map, key: [*]const u8, key_size: usize, value: *?[*]u8, value_size: *usize) Status;
extern "env" fn proxy_send_local_response(status: u32, details: [*]const u8, details_size: usize, body: [*]const u8, body_size: usize, headers: [*]const u8, headers_size: usize, grpc_status: i32) Status;

/// Holds what the host hands out during one callback, and what is made of it.
var scratch: [64 * 1024]u8 align(16) = undefined;
var used: usize = 0;

fn alloc(size: usize) ?[]u8 {
    const start = std.mem.alignForward(usize, used, 16);
    if (size > scratch.len - @min(start, scratch.len)) return null;
    used = start + size;
    return scratch[start..used];
}

export fn proxy_abi_version_0_2_1() void {}

/// A null pointer tells the host that there is no room.
export fn proxy_on_memory_allocate(size: usize) ?[*]u8 {
    return (alloc(size) orelse return null).ptr;
}

fn requestHeader(name: []const u8) ?[]const u8 {
    var value: ?[*]u8 = null;
    var size: usize = 0;
    if (proxy_get_header_map_value(.request_headers, name.ptr, name.len, &value, &size) != .ok) return null;
    return (value orelse return "")[0..size];
}

/// A header list of one pair: the number of pairs, the sizes of the key and the
/// value, then both with a zero byte after each.
fn headerList(name: []const u8, value: []const u8) ?[]const u8 {
    const list = alloc(4 + 8 + name.len + 1 + value.len + 1) orelse return null;
    std.mem.writeInt(u32, list[0..4], 1, .little);
    std.mem.writeInt(u32, list[4..8], @intCast(name.len), .little);
    std.mem.writeInt(u32, list[8..12], @intCast(value.len), .little);
    @memcpy(list[12..][0..name.len], name);
    list[12 + name.len] = 0;
    @memcpy(list[13 + name.len ..][0..value.len], value);
    list[list.len - 1] = 0;
    return list;
}

fn redirect() ?void {
    const scheme = requestHeader("x-forwarded-proto") orelse requestHeader(":scheme") orelse return;
    if (!std.mem.eql(u8, scheme, "http")) return;
    const host = requestHeader(":authority") orelse return null;
    const path = requestHeader(":path") orelse return null;

    const prefix = "https://";
    const location = alloc(prefix.len + host.len + path.len) orelse return null;
    @memcpy(location[0..prefix.len], prefix);
    @memcpy(location[prefix.len..][0..host.len], host);
    @memcpy(location[prefix.len + host.len ..], path);
    const headers = headerList("location", location) orelse return null;

    const details = "redirect_https";
    const body = "use HTTPS\n";
    _ = proxy_send_local_response(308, details, details.len, body, body.len, headers.ptr, headers.len, -1);
    redirected = true;
}

var redirected = false;

export fn proxy_on_request_headers(context: u32, count: u32, end_of_stream: u32) Action {
    _ = .{ context, count, end_of_stream };
    used = 0;
    redirected = false;
    redirect() orelse {
        const message = "request without an authority or path, or with too long ones, passes";
        _ = proxy_log(.warn, message, message.len);
    };
    return if (redirected) .pause else .@"continue";
}
