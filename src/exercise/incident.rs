//! What can go wrong while serving, and the findings for it.

use crate::{
    host::Flow,
    verdict::{Finding, Rule},
    vm::{Instance, Trap},
};

use super::load::hazard_finding;

/// Something that went wrong while serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incident {
    /// A callback ended early.
    Trap(Box<Trap>),
    /// The stream is paused and nothing will resume it.
    Stalled {
        /// The callback that paused it.
        paused_in: &'static str,
    },
    /// Something of a TCP connection was held and nothing let it through.
    ConnectionStalled {
        /// The callback that held it.
        paused_in: &'static str,
    },
    /// The module and an upstream that echoes keep each other busy for ever.
    EndlessConnection {
        /// What the upstream sent until that was given up.
        answers: u32,
    },
    /// The module asked for more than one local reply.
    SecondReply,
    /// The module reset the stream.
    Reset,
    /// The module continued a direction in the callback of its headers, and returned Continue.
    HeadersTwice(Flow),
    /// Envoy's router answered the request that left the filter itself.
    RefusedByRouter {
        /// With this status.
        status: u32,
        /// And this body; none where no route matches.
        reason: String,
    },
    /// A `content-length` that is not the body's.
    LengthMismatch(LengthMismatch),
    /// The module had more of a body buffered than Envoy keeps.
    BufferLimit {
        /// The direction.
        flow: Flow,
        /// Bytes that Envoy keeps.
        limit: usize,
    },
    /// The status of the response is none that ends a response.
    NoFinalStatus(u32),
    /// Envoy's codec refused the response that left the filter.
    RefusedByCodec(String),
}

/// A `content-length` that is not the body's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthMismatch {
    /// The direction.
    pub flow: Flow,
    /// Bytes by the header.
    pub declared: u64,
    /// Bytes of the body.
    pub actual: u64,
}

/// The finding for anything but a trap.
pub(super) fn incident_finding(incident: &Incident, instance: &Instance) -> Finding {
    let protocol_error = |message: String| Finding::error(Rule::RunProtocol, message);
    let protocol_warning = |message: String| Finding::warning(Rule::RunProtocol, message);
    match incident {
        Incident::Trap(trap) => hazard_finding(trap, &format!("`{}`", trap.function)),
        Incident::Stalled { paused_in } => {
            let help = if !instance.state().pending.unknown_clusters.is_empty() {
                "the module called a service that does not exist here and was told so; it should answer or resume the stream when a call cannot be made"
            } else {
                "resume the stream (proxy_continue_stream), answer it (proxy_send_local_response), or return Continue; a pause in a headers callback also keeps the body away"
            };
            Finding::error(
                Rule::RunStalled,
                format!("`{paused_in}` paused the stream and nothing will resume it: the client waits until a time-out"),
            )
            .help(help)
        }
        Incident::ConnectionStalled { paused_in } => Finding::error(
            Rule::RunStalled,
            format!("`{paused_in}` held the connection back and nothing let it through: what it held never arrives"),
        )
        .help("return Continue once there is no more to wait for: at the latest when end_of_stream is set; only data of the client can be let through later (proxy_continue_stream)"),
        Incident::EndlessConnection { answers } => Finding::warning(
            Rule::LimitReached,
            format!("the module sent the upstream something for each of {answers} answers: the rest was given up"),
        )
        .help("an upstream that echoes would never come to an end with this filter"),
        Incident::SecondReply => protocol_warning(
            "a second local reply was asked for, which Envoy does not send through the filters".to_owned(),
        )
        .help("send one local reply for a stream"),
        Incident::RefusedByRouter { status, reason } => protocol_error(format!(
            "Envoy's router refuses the request headers that leave the filter and answers {status}: {}",
            if reason.is_empty() { "no route matches without a :path that begins with `/`" } else { reason }
        ))
        .help("keep :method and :path, and set only header names and values that are legal in HTTP"),
        Incident::RefusedByCodec(reason) => protocol_error(format!(
            "Envoy refuses the response headers that leave the filter and answers 502: {reason}"
        ))
        .help("keep :status, and set it to a number only"),
        Incident::NoFinalStatus(status) => protocol_error(format!(
            "the response leaves the filter with status {status}, which ends no HTTP response: the client waits or gives up"
        ))
        .help("send a status from 200 to 599"),
        Incident::LengthMismatch(LengthMismatch { flow, declared, actual }) => {
            let (what, reader) = match flow {
                Flow::Request => ("request", "upstream"),
                Flow::Response => ("response", "client"),
            };
            let message = format!(
                "the {what} leaves the filter with content-length {declared} and a body of {actual} bytes"
            );
            let help = "remove content-length in the headers callback of a body that will be changed";
            if declared > actual {
                protocol_error(format!("{message}: the {reader} waits for the rest until a time-out")).help(help)
            } else {
                protocol_warning(format!("{message}: the {reader} takes the rest for another message")).help(help)
            }
        }
        Incident::HeadersTwice(flow) => protocol_error(match flow {
            Flow::Request => "the request was continued in the callback of its headers, which then returned Continue: Envoy sends the request upstream twice".to_owned(),
            Flow::Response => "the response was continued in the callback of its headers, which then returned Continue: Envoy sends the headers twice, and the second ones are a part of the body".to_owned(),
        })
        .help("continue a stream only from another callback than the one that pauses it, or return Pause"),
        Incident::BufferLimit { flow, limit } => {
            let (what, outcome) = match flow {
                Flow::Request => ("request", "answers 413"),
                Flow::Response => ("response", "answers 500, or closes the connection where the headers have left"),
            };
            protocol_error(format!(
                "the module has more than {limit} bytes of the {what}'s body buffered: Envoy {outcome}"
            ))
            .help("let the body go on in frames, or raise per_connection_buffer_limit_bytes of the listener (buffer_limit_bytes with --environment)")
        }
        Incident::Reset => {
            protocol_warning("the stream was reset before its answer was complete".to_owned())
        }
    }
}
