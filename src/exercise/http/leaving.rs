//! What leaves the filter: messages to the other side, the upstream's answer to a whole request, and
//! the replies that Envoy makes itself.

use crate::host::Flow;

use super::{
    super::{
        around::{Reply, envoys_reply, length_mismatch, prepare, refused_by_router, text_pairs},
        exchange::Message,
        incident::Incident,
        upstream,
    },
    Stream,
};

impl Stream<'_> {
    pub(super) fn pass_headers(&mut self, flow: Flow, end: bool) {
        let headers = self.state().direction(flow).headers.clone().unwrap_or_default();
        if flow == Flow::Request
            && let Some((status, body)) = refused_by_router(&headers)
        {
            // Found where the request is written to a connection: by then the whole of it is there.
            self.request.end_seen |= status == 503;
            self.incidents.push(Incident::RefusedByRouter { status, reason: body.clone() });
            self.reply_locally(prepare(&envoys_reply(status, "router", body)));
            return;
        }
        if flow == Flow::Response && headers.number::<u32>(b":status").is_none() {
            let reason = "missing required header: :status".to_owned();
            self.incidents.push(Incident::RefusedByCodec(reason.clone()));
            self.reply_directly(prepare(&envoys_reply(502, "codec_error", reason)));
            return;
        }
        if flow == Flow::Response {
            self.closes = !self.request.end_seen;
        }
        let side = self.side(flow);
        side.passed.headers = text_pairs(&headers);
        side.headers_passed = true;
        if flow == Flow::Request {
            self.state().upstream_selected = true;
        }
        if end {
            self.end(flow);
        }
    }

    pub(super) fn pass_data(&mut self, flow: Flow, data: Vec<u8>, end: bool) {
        if flow == Flow::Response {
            self.state().response_bytes += data.len() as u64;
        }
        self.side(flow).passed.body.extend(data);
        if end {
            self.end(flow);
        }
    }

    pub(super) fn pass_trailers(&mut self, flow: Flow) {
        let trailers = self.state().direction(flow).trailers.clone().unwrap_or_default();
        self.side(flow).passed.trailers = text_pairs(&trailers);
        self.end(flow);
    }

    /// One direction has passed whole. The upstream answers a whole request.
    fn end(&mut self, flow: Flow) {
        if std::mem::replace(&mut self.side(flow).ended, true) || flow == Flow::Response {
            return;
        }
        if let Some(mismatch) = length_mismatch(&self.request.passed, Flow::Request) {
            let upstream_waits = mismatch.declared > mismatch.actual;
            self.incidents.push(Incident::LengthMismatch(mismatch));
            if upstream_waits {
                // It never has the whole request, so that it never answers.
                self.reset = true;
                return;
            }
        }
        let mut seen = self.request.passed.clone();
        // The router adds this on its way out.
        seen.headers.push(("x-envoy-expected-rq-timeout-ms".to_owned(), "15000".to_owned()));
        if !seen.trailers.is_empty() {
            seen.headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
        }
        let answer = upstream::answer(&self.exchange.upstream, &seen);
        self.request.passed = seen;
        let state = self.state();
        state.response_code = answer.headers.number(b":status");
        state.code_details = Some("via_upstream".to_owned());
        self.receive_headers(Flow::Response, answer.headers, false);
        let frames = answer.frames.len();
        for (index, frame) in answer.frames.into_iter().enumerate() {
            let last = index + 1 == frames && answer.trailers.is_none();
            self.state().upstream_done = last;
            self.receive_data(Flow::Response, frame, last);
        }
        if let Some(trailers) = answer.trailers {
            self.state().upstream_done = true;
            self.receive_trailers(Flow::Response, trailers);
        }
    }

    /// `failStream`: 503 without a body, once.
    pub(super) fn fail_stream(&mut self) {
        if std::mem::replace(&mut self.failure_reply_sent, true) {
            return;
        }
        self.reply_locally(prepare(&envoys_reply(503, "wasm_fail_stream", String::new())));
    }

    /// `sendLocalReply`: through the filters while there is no response yet, straight to the client
    /// while its headers have not left, else the stream is reset.
    pub(super) fn reply_locally(&mut self, reply: Reply) {
        if self.response.ended || self.reset {
            return;
        }
        if self.response.headers_passed {
            self.reset = true;
            self.incidents.push(Incident::Reset);
            return;
        }
        if self.state().response.headers.is_some() {
            if self.state().replied && !self.failure_reply_sent {
                self.incidents.push(Incident::SecondReply);
            }
            self.reply_directly(reply);
            return;
        }
        if std::mem::replace(&mut self.state().replied, true) {
            self.incidents.push(Incident::SecondReply);
            return;
        }
        self.request.aborted = true;
        self.note_reply(&reply);
        self.reply = Some(reply);
    }

    /// `sendDirectLocalReply`: past the filters.
    fn reply_directly(&mut self, reply: Reply) {
        self.note_reply(&reply);
        self.request.aborted = true;
        self.closes = !self.request.end_seen;
        let side = &mut self.response;
        side.aborted = true;
        side.passed =
            Message { headers: text_pairs(&reply.headers), body: reply.body, trailers: Vec::new() };
        (side.headers_passed, side.ended) = (true, true);
    }

    fn note_reply(&mut self, reply: &Reply) {
        let state = self.state();
        state.response_code = reply.headers.number(b":status");
        state.code_details = Some(reply.details.clone());
    }

    /// Sends the reply that waits, through the encode side.
    pub(super) fn send_reply(&mut self) {
        let Some(reply) = self.reply.take() else { return };
        let end = reply.body.is_empty();
        self.receive_headers(Flow::Response, reply.headers, end);
        if !end {
            self.receive_data(Flow::Response, reply.body, true);
        }
    }
}
