//! The callbacks of one stream: what the module sees in each, and what its result means
//! (proxy-wasm-cpp-host `src/context.cc`, Envoy `source/extensions/common/wasm/context.cc`).

use crate::{
    host::{BodySource, Flow, HeaderMap},
    vm::{Headers, Trap},
};

use super::{Stream, iteration::Iteration};

/// What a headers callback's result means: 0 and 2 continue, anything else pauses everything. With
/// `allow_on_headers_stop_iteration` 1 pauses the headers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadersStatus {
    Continue,
    StopIteration,
    StopAll,
}

/// What a body callback's result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataStatus {
    Continue,
    StopAndBuffer,
    StopAndWatermark,
    StopNoBuffer,
}

impl Stream<'_> {
    /// Whether the callback is skipped, because its side of the stream is none of the filter's
    /// business.
    fn skips(&self, flow: Flow) -> bool {
        self.passed_by || flow == Flow::Response && self.failure_reply_sent
    }

    pub(super) fn headers_callback(&mut self, flow: Flow, end: bool) -> HeadersStatus {
        if self.skips(flow) {
            return HeadersStatus::Continue;
        }
        if self.instance.is_failed() {
            self.fail_stream();
            return HeadersStatus::StopAll;
        }
        self.state().end_of_stream = end;
        let direction = self.state().direction_mut(flow);
        direction.headers_visible = true;
        let count = count(direction.headers.as_ref());
        let callbacks = self.instance.callbacks();
        let (name, callback) = match flow {
            Flow::Request => ("proxy_on_request_headers", callbacks.on_request_headers.clone()),
            Flow::Response => ("proxy_on_response_headers", callbacks.on_response_headers.clone()),
        };
        let id = self.id;
        let outcome = callback.map(|callback| match callback {
            Headers::V0_1(f) => self.instance.call(name, &f, id, (id, count)),
            Headers::V0_2(f) => self.instance.call(name, &f, id, (id, count, u32::from(end))),
        });
        let status = match self.after_callback(name, outcome) {
            Some(0 | 2) => HeadersStatus::Continue,
            Some(1) if self.instance.state().plugin.allow_on_headers_stop_iteration => {
                HeadersStatus::StopIteration
            }
            Some(_) | None => HeadersStatus::StopAll,
        };
        if status == HeadersStatus::Continue {
            self.state().direction_mut(flow).headers_visible = false;
        } else {
            self.paused_in = name;
        }
        status
    }

    pub(super) fn data_callback(
        &mut self,
        flow: Flow,
        data: Vec<u8>,
        end: bool,
    ) -> (DataStatus, Vec<u8>) {
        if self.skips(flow) {
            return (DataStatus::Continue, data);
        }
        if self.instance.is_failed() {
            self.fail_stream();
            return (DataStatus::StopNoBuffer, data);
        }
        self.state().end_of_stream = end;
        // Older releases go on buffering behind a resumption: what the callback lets pass then stays
        // behind, and is lost unless the stream is held back again.
        let goes_on_buffering = self.instance.state().release.minor < 38
            || self.side(flow).iteration != Iteration::Continue;
        let direction = self.state().direction_mut(flow);
        let body = &mut direction.body;
        if body.buffering && goes_on_buffering {
            body.buffered.extend(data);
            body.source = BodySource::Buffered;
        } else {
            body.frame = data;
            body.source = BodySource::Frame;
        }
        let size = body.visible().map_or(0, Vec::len);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let callbacks = self.instance.callbacks();
        let (name, callback) = match flow {
            Flow::Request => ("proxy_on_request_body", callbacks.on_request_body.clone()),
            Flow::Response => ("proxy_on_response_body", callbacks.on_response_body.clone()),
        };
        let id = self.id;
        let outcome =
            callback.map(|f| self.instance.call(name, &f, id, (id, size, u32::from(end))));
        let status = match self.after_callback(name, outcome) {
            Some(0) => DataStatus::Continue,
            Some(1) => DataStatus::StopAndBuffer,
            Some(2) => DataStatus::StopAndWatermark,
            Some(_) | None => DataStatus::StopNoBuffer,
        };
        if status != DataStatus::Continue {
            self.paused_in = name;
        }
        let direction = self.state().direction_mut(flow);
        let body = &mut direction.body;
        body.buffering = status == DataStatus::StopAndBuffer;
        if status == DataStatus::Continue {
            body.source = BodySource::None;
        }
        let data = std::mem::take(&mut body.frame);
        if body.source == BodySource::Frame {
            // What the module may still read of a frame that it stopped is what is held back.
            body.source = BodySource::Buffered;
        }
        (status, data)
    }

    pub(super) fn trailers_callback(&mut self, flow: Flow) -> bool {
        if self.skips(flow) {
            return true;
        }
        if self.instance.is_failed() {
            self.fail_stream();
            return false;
        }
        let direction = self.state().direction_mut(flow);
        direction.trailers_visible = true;
        let count = count(direction.trailers.as_ref());
        let callbacks = self.instance.callbacks();
        let (name, callback) = match flow {
            Flow::Request => ("proxy_on_request_trailers", callbacks.on_request_trailers.clone()),
            Flow::Response => {
                ("proxy_on_response_trailers", callbacks.on_response_trailers.clone())
            }
        };
        let id = self.id;
        let outcome = callback.map(|f| self.instance.call(name, &f, id, (id, count)));
        let continues = self.after_callback(name, outcome) == Some(0);
        if continues {
            self.state().direction_mut(flow).trailers_visible = false;
        } else {
            self.paused_in = name;
        }
        continues
    }

    /// `proxy_on_request_metadata` and its counterpart. The result says nothing: there is only one.
    pub(super) fn metadata_callback(&mut self, flow: Flow, entries: u32) {
        if self.skips(flow) {
            return;
        }
        if self.instance.is_failed() {
            self.fail_stream();
            return;
        }
        let callbacks = self.instance.callbacks();
        let (name, callback) = match flow {
            Flow::Request => ("proxy_on_request_metadata", callbacks.on_request_metadata.clone()),
            Flow::Response => {
                ("proxy_on_response_metadata", callbacks.on_response_metadata.clone())
            }
        };
        let id = self.id;
        let outcome = callback.map(|f| self.instance.call(name, &f, id, (id, entries)));
        self.after_callback(name, outcome);
    }

    /// Ends a callback: its result counts unless the module asked for a local reply, and what waited
    /// for the end is done. `None` stands for "stop", 0 for an absent callback.
    fn after_callback(
        &mut self,
        name: &'static str,
        outcome: Option<Result<u32, Box<Trap>>>,
    ) -> Option<u32> {
        self.running = name;
        let stopped = self.instance.state().stop_iteration;
        let result = match outcome {
            None => Some(0),
            Some(Ok(result)) if !stopped => Some(result),
            Some(Ok(_)) => None,
            Some(Err(trap)) => {
                self.trapped(trap);
                None
            }
        };
        self.in_callback = true;
        self.run_deferred();
        self.in_callback = false;
        if self.instance.is_failed() {
            self.fail_stream();
        }
        result
    }

    /// The end of the stream: access log, then done, then delete. A failed VM is not called.
    pub(super) fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let now = self.instance.state().process.now_ns().cast_signed();
        let state = self.state();
        state.duration_ns = Some(now.saturating_sub(state.start_ns));
        state.ending = true;
        let id = self.id;
        if let Some(log) =
            self.instance.live_callbacks().and_then(|callbacks| callbacks.on_log.clone())
        {
            self.state().access_log = true;
            let outcome = self.instance.call("proxy_on_log", &log, id, id);
            self.state().access_log = false;
            self.end_of_life_callback(outcome);
        }
        if let Some(done) =
            self.instance.live_callbacks().and_then(|callbacks| callbacks.on_done.clone())
        {
            let outcome = self.instance.call("proxy_on_done", &done, id, id).map(drop);
            self.end_of_life_callback(outcome);
        }
        if let Some(delete) =
            self.instance.live_callbacks().and_then(|callbacks| callbacks.on_delete.clone())
        {
            let outcome = self.instance.call("proxy_on_delete", &delete, id, id);
            self.end_of_life_callback(outcome);
        }
    }

    fn end_of_life_callback(&mut self, outcome: Result<(), Box<Trap>>) {
        let late = self.instance.end_call().trap;
        for trap in outcome.err().into_iter().chain(late) {
            self.trapped(trap);
        }
    }
}

fn count(headers: Option<&HeaderMap>) -> u32 {
    u32::try_from(headers.map_or(0, HeaderMap::len)).unwrap_or(u32::MAX)
}
