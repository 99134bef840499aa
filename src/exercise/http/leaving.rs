//! What leaves the filter: messages to the other side, the upstream's answer to a whole request, and
//! the replies that Envoy makes itself.

use crate::host::{Flow, HeaderMap, NETWORK_LATENCY_NS};

use super::{
    super::{
        around::{
            Reply, content_length, envoys_reply, frame_by_length, length_mismatch, prepare,
            refused_by_router, text_pairs,
        },
        exchange::{Message, Party},
        incident::Incident,
        upstream,
    },
    Stream,
};

impl Stream<'_> {
    pub(super) fn pass_headers(&mut self, flow: Flow, end: bool) {
        let mut headers = self.state().direction(flow).headers.clone().unwrap_or_default();
        if flow == Flow::Request
            && let Some((status, body)) = refused_by_router(&headers)
        {
            // Found where the request is written to a connection: by then the whole of it is there.
            self.received |= status == 503;
            self.incidents.push(Incident::RefusedByRouter { status, reason: body.clone() });
            let details = if status == 404 {
                "route_not_found".to_owned()
            } else {
                let reason = body.replace(' ', "_");
                format!("filter_removed_required_request_headers{{{reason}}}")
            };
            self.reply_locally(prepare(&envoys_reply(status, &details, body)));
            return;
        }
        if flow == Flow::Response && headers.number::<u32>(b":status").is_none() {
            let reason = "missing required header: :status".to_owned();
            self.incidents.push(Incident::RefusedByCodec(reason.clone()));
            self.reply_directly(prepare(&envoys_reply(502, "codec_error", reason)));
            return;
        }
        if flow == Flow::Request {
            // The router adds this to the map that the filter reads as well.
            headers.add(b"x-envoy-expected-rq-timeout-ms", b"15000");
        }
        let passed = text_pairs(&headers);
        match flow {
            Flow::Response => {
                self.state().response_code = headers.number(b":status");
                self.begin_response(headers);
            }
            Flow::Request => {
                let state = self.state();
                state.request.headers = Some(headers);
                state.upstream_selected = true;
            }
        }
        let side = self.side(flow);
        side.passed.headers = passed;
        side.headers_passed = true;
        side.has_body = !end;
        if end {
            self.end(flow);
        }
    }

    /// The headers of the response leave: Envoy adds and removes some in the map that the access log reads
    /// as well, and decides whether the connection ends behind the response.
    fn begin_response(&mut self, mut headers: HeaderMap) {
        self.closes = !self.exchange.is_http2() && (!self.received || self.bad_request);
        for name in ["transfer-encoding", "connection", "keep-alive", "proxy-connection"] {
            headers.remove(name.as_bytes());
        }
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        headers.replace(b"date", date.as_bytes());
        headers.replace(b"server", b"envoy");
        if self.closes {
            headers.replace(b"connection", b"close");
        }
        self.state().response.headers = Some(headers);
    }

    pub(super) fn pass_data(&mut self, flow: Flow, data: Vec<u8>, end: bool) {
        if flow == Flow::Response {
            self.state().response_bytes += data.len() as u64;
        }
        let side = self.side(flow);
        side.passed.body.extend(data);
        let (length, actual) = (content_length(&side.passed), side.passed.body.len() as u64);
        if end {
            self.end(flow);
        } else if flow == Flow::Request
            && !self.exchange.is_http2()
            && length.is_some_and(|length| actual >= length)
        {
            // The upstream has all that it was told of.
            self.expect_answer();
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
                self.client_leaves();
                self.reset = true;
                return;
            }
        }
        self.expect_answer();
    }

    /// The upstream's answer comes once the running work is done.
    fn expect_answer(&mut self) {
        let due_ns = self.instance.state().process.elapsed_ns() + NETWORK_LATENCY_NS;
        if !self.answered {
            self.answer_due_ns.get_or_insert(due_ns);
        }
    }

    /// The request as the upstream reads it.
    pub(super) fn upstream_view(&self) -> Message {
        let mut seen = self.request.passed.clone();
        if content_length(&seen).is_some() {
            frame_by_length(&mut seen);
        } else if self.request.has_body && !self.exchange.is_http2() {
            seen.headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
        }
        seen
    }

    /// The upstream answers, unless the filter did.
    pub(super) fn answer(&mut self) {
        if self.is_over() || self.state().response.headers.is_some() {
            return;
        }
        self.answered = true;
        let (exchange, request) = (self.exchange, self.upstream_view());
        let mut answer = upstream::answer(&exchange.upstream, &request, exchange.is_http2());
        if !self.request.ended {
            answer.headers.remove(b"x-envoy-upstream-service-time");
        }
        let state = self.state();
        state.response_code = answer.headers.number(b":status");
        state.code_details = Some("via_upstream".to_owned());
        if self.is_head() {
            self.state().upstream_done = true;
            self.receive_headers(Flow::Response, answer.headers, true);
            return;
        }
        self.receive_headers(Flow::Response, answer.headers, false);
        let frames = answer.frames.len();
        for (index, frame) in answer.frames.into_iter().enumerate() {
            self.receive_metadata_of(Party::Upstream, index, frames);
            let last = index + 1 == frames && answer.trailers.is_none();
            self.state().upstream_done = last;
            self.receive_data(Flow::Response, frame, last);
        }
        if let Some(trailers) = answer.trailers {
            self.receive_metadata_of(Party::Upstream, frames, frames);
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
        if self.response.ended || self.reset && !self.in_callback {
            return;
        }
        if self.response.headers_passed {
            self.state().code_details = Some(reply.details);
            self.close();
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
        self.state().response_bytes += reply.body.len() as u64;
        let headers = text_pairs(&reply.headers);
        self.begin_response(reply.headers);
        let side = &mut self.response;
        side.aborted = true;
        side.has_body = !reply.body.is_empty();
        side.passed = Message { headers, body: reply.body, trailers: Vec::new() };
        (side.headers_passed, side.ended) = (true, true);
    }

    fn note_reply(&mut self, reply: &Reply) {
        // Envoy takes it for an error of the message, behind which HTTP/1 has no other one.
        self.bad_request |= reply.headers.get(b":status") == Some(b"400");
        let state = self.state();
        state.response_code = reply.headers.number(b":status");
        state.code_details = Some(reply.details.clone());
    }

    /// Sends the reply that waits, through the encode side.
    pub(super) fn send_reply(&mut self) {
        let Some(reply) = self.reply.take() else { return };
        let end = reply.body.is_empty() || self.is_head();
        if self.reset {
            // The stream is gone, and still the reply begins its way through the filter.
            self.state().response.headers = Some(reply.headers);
            self.headers_callback(Flow::Response, end);
            return;
        }
        self.receive_headers(Flow::Response, reply.headers, end);
        if !end {
            self.receive_data(Flow::Response, reply.body, true);
        }
    }
}
