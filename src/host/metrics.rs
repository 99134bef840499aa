//! Metrics (Envoy `source/extensions/common/wasm/context.cc`, `defineMetric` and after).

use crate::abi::Status;

use super::{
    memory::{Guest, read, write_u32, write_u64},
    process::MetricValue,
    state::{HostResult, HostState},
};

const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
/// The class of histograms.
pub(super) const HISTOGRAM: u32 = 2;

/// The low two bits of an id are its class: counter, gauge, histogram.
const CLASS_MASK: u32 = 0b11;
/// Ids of one class are this far apart.
const ID_STEP: u32 = 4;

/// The metrics that one VM defined: names by id, one list for each class.
#[derive(Debug, Default)]
pub struct MetricIds {
    names: [Vec<Vec<u8>>; 3],
}

impl MetricIds {
    /// Every definition gets an id of its own: counters 4, 8, …; gauges 5, 9, …; histograms 6, 10, ….
    fn define(&mut self, class: u32, name: Vec<u8>) -> u32 {
        let names = &mut self.names[class as usize];
        names.push(name);
        u32::try_from(names.len()).unwrap_or(u32::MAX).wrapping_mul(ID_STEP) | class
    }

    /// The class of an id, and its name if it was defined.
    fn find(&self, id: u32) -> (u32, Option<&Vec<u8>>) {
        let class = id & CLASS_MASK;
        let index = (id / ID_STEP).checked_sub(1).map(|index| index as usize);
        let name = index.and_then(|index| self.names.get(class as usize)?.get(index));
        (class, name)
    }
}

/// `proxy_define_metric`: a known name gets another id for the same metric.
pub fn proxy_define_metric(
    guest: &mut Guest<'_>,
    kind: u32,
    name_ptr: u32,
    name_size: u32,
    id_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let name = read(guest, name_ptr, name_size)?;
    if kind > HISTOGRAM {
        return Err(Status::BadArgument.into());
    }
    let state = guest.data_mut();
    state.charge(name.len() + size_of::<MetricValue>())?;
    state.process.lock().metrics.entry((kind, name.clone())).or_default();
    let id = state.metric_ids.define(kind, name);
    write_u32(guest, id_ptr, id)
}

fn with_metric<T>(
    state: &HostState,
    id: u32,
    how: impl FnOnce(u32, &mut MetricValue) -> Result<T, Status>,
) -> HostResult<T> {
    state.context_id()?;
    let (class, name) = state.metric_ids.find(id);
    let name = name.ok_or(Status::NotFound)?.clone();
    let mut tables = state.process.lock();
    Ok(how(class, tables.metrics.entry((class, name)).or_default())?)
}

/// `proxy_increment_metric`: counters only go up, gauges either way; histograms take no increment.
pub fn proxy_increment_metric(guest: &mut Guest<'_>, id: u32, offset: u64) -> HostResult {
    let offset = offset.cast_signed();
    let state = guest.data();
    state.context_id()?;
    match id & CLASS_MASK {
        COUNTER if offset <= 0 && state.metric_ids.find(id).1.is_some() => {
            Err(Status::BadArgument.into())
        }
        COUNTER | GAUGE => with_metric(state, id, |_, metric| {
            metric.value = metric.value.wrapping_add_signed(offset);
            Ok(())
        }),
        _ => Err(Status::BadArgument.into()),
    }
}

/// `proxy_record_metric`: adds to a counter, sets a gauge, samples a histogram.
pub fn proxy_record_metric(guest: &mut Guest<'_>, id: u32, value: u64) -> HostResult {
    with_metric(guest.data(), id, |class, metric| {
        match class {
            COUNTER => metric.value = metric.value.wrapping_add(value),
            GAUGE => metric.value = value,
            _ => {
                metric.value = value;
                metric.samples += 1;
            }
        }
        Ok(())
    })
}

/// `proxy_get_metric`: a counter's or gauge's value.
pub fn proxy_get_metric(guest: &mut Guest<'_>, id: u32, result_ptr: u32) -> HostResult {
    let state = guest.data();
    state.context_id()?;
    if id & CLASS_MASK >= HISTOGRAM {
        return Err(Status::BadArgument.into());
    }
    let value = with_metric(state, id, |_, metric| Ok(metric.value))?;
    write_u64(guest, result_ptr, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_class() {
        let mut ids = MetricIds::default();
        assert_eq!(ids.define(COUNTER, b"a".to_vec()), 4);
        assert_eq!(ids.define(COUNTER, b"a".to_vec()), 8);
        assert_eq!(ids.define(GAUGE, b"a".to_vec()), 5);
        assert_eq!(ids.define(HISTOGRAM, b"a".to_vec()), 6);
        assert_eq!(ids.find(8), (COUNTER, Some(&b"a".to_vec())));
        assert_eq!(ids.find(12), (COUNTER, None));
        assert_eq!(ids.find(0), (COUNTER, None));
        assert_eq!(ids.find(7), (3, None));
    }
}
