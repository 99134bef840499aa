// deny-path: refuses requests under a path with a 403, on ABI 0.2.0.
// The plugin configuration is the path's beginning; without one it is `/admin`.
// Requests that pass get `x-deny-path: passed`. It knows the one root_id
// `deny_path`: the SDK looks a root up by its id, and under any other id it
// throws while the root context is made, so that the proxy refuses to load it.

export * from "@solo-io/proxy-runtime/proxy";
import {
  Context,
  FilterHeadersStatusValues,
  GrpcStatusValues,
  LogLevelValues,
  RootContext,
  log,
  registerRootContext,
  send_local_response,
  stream_context,
} from "@solo-io/proxy-runtime";
import { BufferTypeValues, get_buffer_bytes } from "@solo-io/proxy-runtime/runtime";

const DEFAULT_PREFIX = "/admin";

class DenyPathRoot extends RootContext {
  prefix: string = DEFAULT_PREFIX;

  // Does not call the inherited one, which hands the host the configuration's
  // size as the address to write that size to.
  onConfigure(configuration_size: u32): bool {
    const bytes = get_buffer_bytes(BufferTypeValues.PluginConfiguration, 0, configuration_size);
    const text = String.UTF8.decode(bytes).trim();
    // Not by `?:`, with which this compiler gives up a string that is still held.
    this.prefix = DEFAULT_PREFIX;
    if (text.length > 0) this.prefix = text;
    if (!this.prefix.startsWith("/")) {
      log(LogLevelValues.error, "invalid configuration: a path starts with `/`");
      return false;
    }
    log(LogLevelValues.info, "refusing requests under " + this.prefix);
    return true;
  }

  createContext(context_id: u32): Context {
    return new DenyPath(context_id, this);
  }
}

class DenyPath extends Context {
  constructor(context_id: u32, root_context: DenyPathRoot) {
    super(context_id, root_context);
  }

  onRequestHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const root = this.root_context as DenyPathRoot;
    if (stream_context.headers.request.get(":path").startsWith(root.prefix)) {
      const body = String.UTF8.encode("deny-path: this path is closed\n");
      send_local_response(403, "deny_path", body, [], GrpcStatusValues.InvalidCode);
      return FilterHeadersStatusValues.StopIteration;
    }
    stream_context.headers.request.replace("x-deny-path", "passed");
    return FilterHeadersStatusValues.Continue;
  }
}

registerRootContext((context_id: u32) => new DenyPathRoot(context_id), "deny_path");
