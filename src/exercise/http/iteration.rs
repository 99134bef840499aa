//! The iteration of the filter manager over one filter: what passes, what is held back, and what goes on
//! after a pause (Envoy `source/common/http/filter_manager.cc`).

use crate::host::{Flow, HeaderMap};

use super::{
    super::{
        around::{envoys_reply, prepare},
        exchange::Party,
        incident::Incident,
    },
    Stream,
    callbacks::{DataStatus, HeadersStatus},
};

/// Where the iteration of one direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Iteration {
    #[default]
    Continue,
    /// Stopped in a body or trailers callback, or for the headers alone: the filter still sees what
    /// arrives.
    StopSingle,
    /// Stopped in a headers callback: the filter sees nothing until it continues.
    StopAll,
}

impl Stream<'_> {
    // What arrives from the codec.

    pub(super) fn receive_headers(&mut self, flow: Flow, headers: HeaderMap, end: bool) {
        if self.side(flow).aborted || self.reset {
            return;
        }
        self.side(flow).end_seen = end;
        self.state().direction_mut(flow).headers = Some(headers);
        let status = self.headers_callback(flow, end);
        let is_over = self.reset;
        let side = self.side(flow);
        if side.aborted || is_over {
            self.send_reply();
            return;
        }
        match status {
            HeadersStatus::StopAll => side.iteration = Iteration::StopAll,
            HeadersStatus::StopIteration => side.iteration = Iteration::StopSingle,
            HeadersStatus::Continue => {
                if side.iteration == Iteration::Continue && !side.headers_continued {
                    side.headers_continued = true;
                    self.pass_headers(flow, end);
                } else if side.headers_passed {
                    self.incidents.push(Incident::HeadersTwice(flow));
                }
            }
        }
        self.send_reply();
    }

    pub(super) fn receive_data(&mut self, flow: Flow, data: Vec<u8>, end: bool) {
        if self.side(flow).aborted || self.reset {
            return;
        }
        self.side(flow).end_seen |= end;
        if self.side(flow).iteration == Iteration::StopAll {
            self.hold(flow, data);
            return;
        }
        self.filter_data(flow, data, end);
        self.send_reply();
    }

    pub(super) fn receive_trailers(&mut self, flow: Flow, trailers: HeaderMap) {
        if self.side(flow).aborted || self.reset {
            return;
        }
        self.side(flow).end_seen = true;
        self.state().direction_mut(flow).trailers = Some(trailers);
        if self.side(flow).iteration == Iteration::StopAll {
            return;
        }
        self.filter_trailers(flow);
        self.send_reply();
    }

    /// The METADATA frames of a party in front of one of its frames.
    pub(super) fn receive_metadata_of(&mut self, party: Party, frame: usize, frames: usize) {
        let flow = match party {
            Party::Client => Flow::Request,
            Party::Upstream => Flow::Response,
        };
        let exchange = self.exchange;
        for metadata in exchange.metadata_before(party, frame, frames) {
            if party == Party::Client {
                self.wait_for_frame();
            }
            self.receive_metadata(flow, u32::try_from(metadata.entries.len()).unwrap_or(u32::MAX));
        }
    }

    /// `decodeMetadata`: kept while everything is stopped, and never held back otherwise.
    fn receive_metadata(&mut self, flow: Flow, entries: u32) {
        // The codec drops a frame that says nothing.
        if entries == 0 || self.side(flow).aborted || self.reset {
            return;
        }
        if self.side(flow).iteration == Iteration::StopAll {
            self.side(flow).saved_metadata.push(entries);
            return;
        }
        self.metadata_callback(flow, entries);
        self.send_reply();
    }

    // The filter's turn.

    /// `decodeData`, then `commonHandleAfterDataCallback`.
    fn filter_data(&mut self, flow: Flow, data: Vec<u8>, end: bool) {
        let had_trailers = self.state().direction(flow).trailers.is_some();
        let (status, data) = self.data_callback(flow, data, end);
        if self.side(flow).aborted || self.reset {
            // Nothing passes any more, but the last callbacks can still see it.
            self.state().direction_mut(flow).body.buffered.extend(data);
            return;
        }
        let trailers_added = !had_trailers && self.state().direction(flow).trailers.is_some();
        let iteration = self.side(flow).iteration;
        match status {
            DataStatus::Continue if iteration == Iteration::StopSingle => {
                self.hold(flow, data);
                if !self.refuse_beyond_limit(flow) {
                    self.continue_iteration(flow);
                }
            }
            DataStatus::Continue => {
                self.pass_data(flow, data, end && !trailers_added);
                if trailers_added {
                    self.pass_trailers(flow);
                }
            }
            stopped => {
                if iteration == Iteration::Continue {
                    self.side(flow).iteration = Iteration::StopSingle;
                }
                if stopped != DataStatus::StopNoBuffer {
                    self.side(flow).limited = stopped == DataStatus::StopAndBuffer;
                    self.hold(flow, data);
                    self.refuse_beyond_limit(flow);
                } else if self.side(flow).end_seen {
                    // So that a later continue ends the stream even though nothing is held back.
                    self.side(flow).buffering = true;
                }
            }
        }
    }

    fn filter_trailers(&mut self, flow: Flow) {
        let continues = self.trailers_callback(flow);
        if self.side(flow).aborted || self.reset {
            return;
        }
        match (continues, self.side(flow).iteration) {
            (true, Iteration::StopSingle) => self.continue_iteration(flow),
            (true, _) => self.pass_trailers(flow),
            (false, Iteration::Continue) => self.side(flow).iteration = Iteration::StopSingle,
            (false, _) => {}
        }
    }

    fn hold(&mut self, flow: Flow, data: Vec<u8>) {
        self.side(flow).buffering = true;
        self.state().direction_mut(flow).body.buffered.extend(data);
    }

    /// What a filter has buffered beyond the limit ends the stream (`requestDataTooLarge`,
    /// `responseDataTooLarge`).
    fn refuse_beyond_limit(&mut self, flow: Flow) -> bool {
        let limit = self.instance.state().process.environment.buffer_limit_bytes;
        let buffered = self.state().direction(flow).body.buffered.len();
        if !self.side(flow).limited || buffered <= limit {
            return false;
        }
        let (status, details, body) = match flow {
            Flow::Request => (413, "request_payload_too_large", "Payload Too Large"),
            Flow::Response => (500, "response_payload_too_large", "Internal Server Error"),
        };
        self.incidents.push(Incident::BufferLimit { flow, limit });
        self.reply_locally(prepare(&envoys_reply(status, details, body.to_owned())));
        true
    }

    /// `commonContinue`: what was held back goes on, from this filter if it stopped everything, from
    /// the next one otherwise.
    pub(super) fn continue_iteration(&mut self, flow: Flow) {
        let side = self.side(flow);
        if side.aborted
            || side.ended
            || (side.iteration == Iteration::Continue && side.headers_continued)
        {
            return;
        }
        let from_here = side.iteration == Iteration::StopAll;
        side.iteration = Iteration::Continue;
        let (end_seen, buffering) = (side.end_seen, side.buffering);
        let headers_continued = std::mem::replace(&mut side.headers_continued, true);
        let had_trailers = self.state().direction(flow).trailers.is_some();
        if self.state().direction(flow).headers.is_none() {
            return;
        }
        if !headers_continued {
            self.pass_headers(flow, end_seen && !buffering && !had_trailers);
        }
        for entries in std::mem::take(&mut self.side(flow).saved_metadata) {
            self.metadata_callback(flow, entries);
            if self.side(flow).aborted || self.reset {
                self.send_reply();
                return;
            }
        }
        if buffering {
            let end = end_seen && !had_trailers;
            self.side(flow).buffering = false;
            let data = std::mem::take(&mut self.state().direction_mut(flow).body.buffered);
            if from_here {
                self.filter_data(flow, data, end);
            } else {
                self.pass_data(flow, data, end);
            }
        }
        // A body callback that stopped again does not keep the trailers from the filter.
        if had_trailers && !self.side(flow).aborted {
            if from_here {
                self.filter_trailers(flow);
            } else {
                self.pass_trailers(flow);
            }
        }
    }
}
