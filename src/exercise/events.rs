//! The event loop of one worker: ticks, items in queues, and what comes back from calls.

use crate::{
    host::{Arrival, HeaderMap, QueueReady, Scheduled},
    vm::{Instance, Trap},
};

use super::{
    around::text_pairs,
    exchange::{Message, Upstream},
    upstream,
};

/// What happens next.
enum Event {
    Tick(u32),
    QueueReady(QueueReady),
    Arrival(Box<Scheduled>),
}

/// Brings the next event to the instance, as long as none later than `until_ns` by the virtual clock.
/// `None` where there is none. What the callback deferred is left to the caller.
pub(super) fn run_next(instance: &mut Instance, until_ns: u64) -> Option<Result<(), Box<Trap>>> {
    instance.live_callbacks()?;
    let (due_ns, event) = next(instance, until_ns)?;
    instance.state().process.advance_to(due_ns);
    Some(deliver(instance, event))
}

/// How long calls may take that nothing waits for, nanoseconds.
pub(super) const LATE_CALLS_NS: u64 = 15_000_000_000;
/// Most events that are waited for then.
pub(super) const MAX_LATE_EVENTS: u32 = 64;

/// Whether a call is still to come back, or a queue to be told of.
pub(super) fn calls_are_under_way(instance: &Instance) -> bool {
    let state = instance.state();
    !state.pending.scheduled.is_empty()
        || state.process.lock().posts.iter().any(|post| post.instance == state.instance)
}

/// Takes what is due first; of several things at one time, what was asked for first.
fn next(instance: &mut Instance, until_ns: u64) -> Option<(u64, Event)> {
    let state = instance.state_mut();
    let now = state.process.elapsed_ns();
    let post = {
        let tables = state.process.lock();
        let own = |post: &QueueReady| post.instance == state.instance;
        tables.posts.iter().position(own).map(|at| ((now, tables.posts[at].order), at))
    };
    let arrivals = state.pending.scheduled.iter().enumerate();
    let arrival = arrivals.map(|(at, event)| ((event.due_ns.max(now), event.order), at)).min();
    let ticks = state.contexts.iter().filter(|(_, context)| context.tick_period_ms > 0);
    // Timers come behind what is ready at the same time.
    let tick = ticks.map(|(id, context)| ((context.tick_due_ns.max(now), u64::MAX), *id)).min();
    let first = [post.map(|post| post.0), arrival.map(|a| a.0), tick.map(|tick| tick.0)]
        .into_iter()
        .flatten()
        .min()
        .filter(|(due_ns, _)| *due_ns <= until_ns)?;
    if let Some((_, at)) = post.filter(|post| post.0 == first) {
        let post = state.process.lock().posts.remove(at)?;
        return Some((first.0, Event::QueueReady(post)));
    }
    if let Some((_, at)) = arrival.filter(|arrival| arrival.0 == first) {
        let arrival = state.pending.scheduled.remove(at);
        return Some((first.0, Event::Arrival(Box::new(arrival))));
    }
    tick.map(|(_, root)| (first.0, Event::Tick(root)))
}

fn deliver(instance: &mut Instance, event: Event) -> Result<(), Box<Trap>> {
    let callbacks = instance.callbacks().clone();
    match event {
        Event::Tick(root) => {
            let due_ns = instance.state().contexts.get(&root).map(|context| context.tick_due_ns);
            let result = match callbacks.on_tick {
                Some(tick) => instance.call("proxy_on_tick", &tick, root, root),
                None => Ok(()),
            };
            // The next period begins when the callback ends, unless the callback began one.
            let state = instance.state_mut();
            if let Some(context) = state.contexts.get(&root)
                && Some(context.tick_due_ns) == due_ns
            {
                state.arm_tick(root, context.tick_period_ms);
            }
            result
        }
        Event::QueueReady(QueueReady { root, token, .. }) => match callbacks.on_queue_ready {
            Some(ready) => instance.call("proxy_on_queue_ready", &ready, root, (root, token)),
            None => Ok(()),
        },
        Event::Arrival(mut event) => {
            if let Arrival::HttpEcho(headers, body) = event.arrival {
                event.arrival = echo(&headers, body);
            }
            instance.bring(*event)
        }
    }
}

/// The answer of the canned upstream to a call, with its body in one piece.
fn echo(headers: &HeaderMap, body: Vec<u8>) -> Arrival {
    let request = Message { headers: text_pairs(headers), body, trailers: Vec::new() };
    let answer = upstream::answer(&Upstream::Echo, &request, false);
    Arrival::HttpResponse(answer.headers, answer.frames.concat(), answer.trailers)
}
