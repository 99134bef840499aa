//! What comes back from the calls of a module.

use crate::host::{Arrival, HeaderMap, Scheduled};

use super::{Instance, Trap};

impl Instance {
    /// Brings what came back from a call to the root context that made it.
    ///
    /// # Errors
    ///
    /// Where the callback trapped.
    pub fn bring(&mut self, event: Scheduled) -> Result<(), Box<Trap>> {
        let Scheduled { root, token, arrival, .. } = event;
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
        let is_call = !matches!(arrival, Arrival::Resolved(_));
        let is_close = matches!(arrival, Arrival::GrpcClose(..));
        let result = self.call_for(root, token, arrival);
        let state = self.state_mut();
        state.pending.delivered = None;
        // The code stays, the message is for the callback only.
        state.call_status.1.clear();
        if is_call {
            state.pending.open.remove(&token);
        }
        if is_close && state.pending.streams.get(&token).is_some_and(|stream| stream.local_closed) {
            state.pending.streams.remove(&token);
        }
        result
    }

    /// Calls the callback of `arrival`, if there is one, and lets it see the arrival.
    fn call_for(&mut self, root: u32, token: u32, arrival: Arrival) -> Result<(), Box<Trap>> {
        let callbacks = self.callbacks();
        let (name, size) = arrival.callback();
        let callback = match &arrival {
            // It is made a response before.
            Arrival::HttpEcho(..) => return Ok(()),
            Arrival::HttpResponse(..) | Arrival::HttpReset => {
                let Some(callback) = callbacks.on_http_call_response.clone() else { return Ok(()) };
                let (body, trailers) = match &arrival {
                    Arrival::HttpResponse(_, body, trailers) => {
                        (body.len(), trailers.as_ref().map_or(0, HeaderMap::len))
                    }
                    _ => (0, 0),
                };
                let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                let parameters = (root, token, size, count(body), count(trailers));
                self.state_mut().begin_arrival(root, arrival);
                return self.call(name, &callback, root, parameters);
            }
            Arrival::GrpcInitialMetadata(_) => &callbacks.on_grpc_receive_initial_metadata,
            Arrival::GrpcMessage(_) => &callbacks.on_grpc_receive,
            Arrival::GrpcTrailingMetadata(_) => &callbacks.on_grpc_receive_trailing_metadata,
            Arrival::GrpcClose(..) => &callbacks.on_grpc_close,
            Arrival::Resolved(_) => &callbacks.on_resolve_dns,
        };
        let Some(callback) = callback.clone() else { return Ok(()) };
        self.state_mut().begin_arrival(root, arrival);
        self.call(name, &callback, root, (root, token, size))
    }
}
