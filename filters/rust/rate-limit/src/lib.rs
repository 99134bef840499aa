// rate-limit: a token bucket that all workers share. A request takes a token
// from shared data by compare-and-swap, or is answered 429; a tick refills.
// JSON configuration, every field optional: {"burst": 10, "refill": 1,
// "interval_ms": 1000}. Metrics: counter `rate_limit.limited`, gauge
// `rate_limit.tokens`, histogram `rate_limit.cas_attempts`.

use log::{error, info, warn};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType, Status};
use serde::Deserialize;
use std::time::{Duration, UNIX_EPOCH};

const KEY: &str = "rate-limit/bucket";

/// Every worker writes the bucket; more misses in a row than this are not to be
/// expected, and a callback must end.
const MAX_ATTEMPTS: u64 = 32;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root {
        limits: Limits::default(),
        metrics: None,
    }));
}}

#[derive(Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    burst: u32,
    refill: u32,
    interval_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { burst: 10, refill: 1, interval_ms: 1000 }
    }
}

impl Limits {
    fn parse(configuration: &[u8]) -> Result<Self, String> {
        if configuration.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let limits: Self = serde_json::from_slice(configuration).map_err(|e| e.to_string())?;
        if limits.burst == 0 || limits.refill == 0 || limits.interval_ms == 0 {
            return Err("burst, refill and interval_ms are at least 1".into());
        }
        Ok(limits)
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.into())
    }
}

/// What shared data holds: the tokens left, and up to when they were refilled.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: u32,
    refilled_ms: u64,
}

impl Bucket {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (tokens, refilled_ms) = bytes.split_first_chunk()?;
        Some(Self {
            tokens: u32::from_le_bytes(*tokens),
            refilled_ms: u64::from_le_bytes(refilled_ms.try_into().ok()?),
        })
    }

    fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[4..].copy_from_slice(&self.refilled_ms.to_le_bytes());
        bytes
    }

    /// Adds what has come due. By the clock and not by the tick, since every
    /// worker has a tick of its own.
    fn refill(&mut self, limits: &Limits, now_ms: u64) {
        let interval = u64::from(limits.interval_ms);
        let due = now_ms.saturating_sub(self.refilled_ms) / interval;
        let tokens = due.saturating_mul(limits.refill.into());
        let room = limits.burst.saturating_sub(self.tokens);
        self.tokens += u32::try_from(tokens).unwrap_or(u32::MAX).min(room);
        self.refilled_ms += due * interval;
    }
}

#[derive(Clone, Copy)]
struct Metrics {
    limited: u32,
    tokens: u32,
    cas_attempts: u32,
}

impl Metrics {
    fn define() -> Result<Self, Status> {
        use hostcalls::define_metric;
        Ok(Self {
            limited: define_metric(MetricType::Counter, "rate_limit.limited")?,
            tokens: define_metric(MetricType::Gauge, "rate_limit.tokens")?,
            cas_attempts: define_metric(MetricType::Histogram, "rate_limit.cas_attempts")?,
        })
    }
}

/// A metric that cannot be written is no reason to fail a request.
fn record(metric: u32, value: u64) {
    if let Err(status) = hostcalls::record_metric(metric, value) {
        warn!("metric {metric}: {status:?}");
    }
}

/// Refills and changes the bucket by compare-and-swap, again until no other worker
/// came between. Gives the result of the `change` that was written, or nothing when
/// too many others came between.
fn update<T>(
    context: &dyn Context,
    limits: &Limits,
    metrics: Option<Metrics>,
    mut change: impl FnMut(&mut Bucket) -> T,
) -> Option<T> {
    let now = context.get_current_time().duration_since(UNIX_EPOCH);
    let now_ms = now.unwrap_or_default().as_millis() as u64;
    for attempt in 1..=MAX_ATTEMPTS {
        let (stored, cas) = context.get_shared_data(KEY);
        let mut bucket = stored
            .as_deref()
            .and_then(Bucket::decode)
            .unwrap_or(Bucket { tokens: limits.burst, refilled_ms: now_ms });
        bucket.refill(limits, now_ms);
        let result = change(&mut bucket);
        if context.set_shared_data(KEY, Some(&bucket.encode()), cas).is_ok() {
            if let Some(metrics) = metrics {
                record(metrics.tokens, bucket.tokens.into());
                record(metrics.cas_attempts, attempt);
            }
            return Some(result);
        }
    }
    None
}

struct Root {
    limits: Limits,
    metrics: Option<Metrics>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match Limits::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(limits) => self.limits = limits,
            Err(reason) => {
                error!("invalid configuration: {reason}");
                return false;
            }
        }
        self.metrics = Metrics::define().ok();
        self.set_tick_period(self.limits.interval());
        let Limits { burst, refill, interval_ms } = self.limits;
        info!("{burst} requests at once, then {refill} every {interval_ms} ms");
        true
    }

    fn on_tick(&mut self) {
        update(self, &self.limits, self.metrics, |_| ());
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { limits: self.limits, metrics: self.metrics }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    limits: Limits,
    metrics: Option<Metrics>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let took_token = update(self, &self.limits, self.metrics, |bucket| {
            let had_token = bucket.tokens > 0;
            bucket.tokens = bucket.tokens.saturating_sub(1);
            had_token
        });
        match took_token {
            Some(true) => return Action::Continue,
            Some(false) => {}
            None => warn!("the bucket is too busy: request refused"),
        }
        if let Some(metrics) = self.metrics {
            if let Err(status) = hostcalls::increment_metric(metrics.limited, 1) {
                warn!("metric {}: {status:?}", metrics.limited);
            }
        }
        let retry_after = self.limits.interval_ms.div_ceil(1000).to_string();
        self.send_http_response(
            429,
            vec![("retry-after", &retry_after), ("content-type", "text/plain")],
            Some(b"rate-limit: too many requests\n"),
        );
        Action::Pause
    }
}
