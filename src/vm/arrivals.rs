//! What comes back from the calls of a module.

use crate::host::{Arrival, HeaderMap, Scheduled};

use super::{Instance, Trap};

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Instance {
    /// Brings what came back from a call to the root context that made it.
    ///
    /// # Errors
    ///
    /// Where the callback trapped.
    pub fn bring(&mut self, event: Scheduled) -> Result<(), Box<Trap>> {
        let Scheduled { root, token, arrival, .. } = event;
        let callbacks = self.callbacks().clone();
        let state = self.state_mut();
        match &arrival {
            Arrival::HttpReset => {
                /// `WasmResult::BrokenConnection`.
                const BROKEN_CONNECTION: u32 = 11;
                state.call_status = (BROKEN_CONNECTION, b"reset".to_vec());
            }
            Arrival::GrpcClose(status, message) => {
                state.call_status = (*status, message.clone());
                if let Some(stream) = state.pending.streams.get_mut(&token) {
                    stream.remote_closed = true;
                }
            }
            _ => {}
        }
        state.begin_arrival(root, arrival.clone());
        let call = |size| (root, token, size);
        let result = match &arrival {
            Arrival::HttpResponse(headers, body, trailers) => {
                let trailers = trailers.as_ref().map_or(0, HeaderMap::len);
                let sizes = (root, token, count(headers.len()), count(body.len()), count(trailers));
                callbacks
                    .on_http_call_response
                    .map(|f| self.call("proxy_on_http_call_response", &f, root, sizes))
            }
            Arrival::HttpReset => callbacks.on_http_call_response.map(|f| {
                self.call("proxy_on_http_call_response", &f, root, (root, token, 0, 0, 0))
            }),
            Arrival::HttpEcho(..) => None,
            Arrival::GrpcInitialMetadata(headers) => {
                callbacks.on_grpc_receive_initial_metadata.map(|f| {
                    let name = "proxy_on_grpc_receive_initial_metadata";
                    self.call(name, &f, root, call(count(headers.len())))
                })
            }
            Arrival::GrpcMessage(message) => callbacks
                .on_grpc_receive
                .map(|f| self.call("proxy_on_grpc_receive", &f, root, call(count(message.len())))),
            Arrival::GrpcTrailingMetadata(headers) => {
                callbacks.on_grpc_receive_trailing_metadata.map(|f| {
                    let name = "proxy_on_grpc_receive_trailing_metadata";
                    self.call(name, &f, root, call(count(headers.len())))
                })
            }
            Arrival::GrpcClose(status, _) => callbacks
                .on_grpc_close
                .map(|f| self.call("proxy_on_grpc_close", &f, root, call(*status))),
            Arrival::Resolved(addresses) => callbacks
                .on_resolve_dns
                .map(|f| self.call("envoy_on_resolve_dns", &f, root, call(count(addresses.len())))),
        };
        let state = self.state_mut();
        state.pending.delivered = None;
        // The code stays, the message is for the callback only.
        state.call_status.1.clear();
        if !matches!(arrival, Arrival::Resolved(_)) {
            state.pending.open.remove(&token);
            if matches!(arrival, Arrival::GrpcClose(..))
                && state.pending.streams.get(&token).is_some_and(|stream| stream.local_closed)
            {
                state.pending.streams.remove(&token);
            }
        }
        result.unwrap_or(Ok(()))
    }
}
